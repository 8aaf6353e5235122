//! How many connections the limit of open files leaves room for.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are no connection: the database, the listener, the log, a push, and connections that are being refused.
const RESERVED: u64 = 256;

/// As many connections as wanted, or as many as there can be. The soft limit of open files is raised where that helps.
pub(super) fn room_for(wanted: usize) -> usize {
    let files = raised(as_u64(wanted).saturating_add(RESERVED));
    let room = room(files);
    if room >= wanted {
        return wanted;
    }
    tracing::warn!(
        max_connections = room,
        wanted,
        open_files = files,
        "--max-connections is lowered, because the limit of open files leaves room for no more"
    );
    room
}

/// As many connections as there can be, without a limit of their own.
pub(super) fn room_for_most() -> usize {
    room(raised(u64::MAX))
}

/// One at least: whoever starts a service with fewer files will see what is missing.
fn room(files: u64) -> usize {
    usize::try_from(files.saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(1)
}

/// The limit of open files, raised to what is needed where the hard limit allows it.
fn raised(needed: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    if soft >= needed {
        return soft;
    }
    let higher = needed.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, higher, hard).map_or(soft, |()| higher)
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_for_what_is_no_connection() {
        assert_eq!(room(1024), 768);
        assert_eq!(room(RESERVED), 1);
        assert_eq!(room(3), 1);
    }
}
