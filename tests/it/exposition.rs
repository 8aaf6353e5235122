//! /metrics, seen from outside: what traffic leaves in it.
