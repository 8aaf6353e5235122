//! The command line: help, exit codes, wrong settings.
