//! The store, seen from outside: nothing acknowledged is lost, and listings stay small in memory.
