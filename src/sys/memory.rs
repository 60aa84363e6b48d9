//! Giving memory back to the system: a daemon that planned once for ten thousand users must not
//! keep that memory.

/// Returns memory to the system that the allocator has and nobody uses.
pub fn give_back() {
    // SAFETY: it takes no pointer, and may be called at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    let _given_back = unsafe { libc::malloc_trim(0) };
}
