//! Log lines, for people and for machines.
