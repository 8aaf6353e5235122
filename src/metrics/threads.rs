//! A small number for each thread, by which threads keep apart what they write.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The calling thread's number. Threads are numbered as they first ask, so the workers of a runtime, which ask first,
/// have those from 0 on.
pub(super) fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}
