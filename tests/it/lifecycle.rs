//! Start, drain and end of the process.
