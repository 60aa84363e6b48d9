//! getgrnam_r(3), for groups of any size.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;

/// Room for a group's name and members at first: enough for almost all.
const FIRST_BUFFER: usize = 16 * 1024;
/// Room for some ten million members: the largest buffer that is tried.
const LAST_BUFFER: usize = 256 * 1024 * 1024;

/// The group's gid; `None`: there is no such group. nix's `Group::from_name` gives up at 1 MiB of
/// members, about 60,000 of them, and a university's `students` has more.
pub fn gid_of_group(name: &CStr) -> nix::Result<Option<u32>> {
    let mut size = FIRST_BUFFER;
    loop {
        let mut buffer: Vec<libc::c_char> = vec![0; size];
        let mut group = MaybeUninit::<libc::group>::uninit();
        let mut result = ptr::null_mut();
        // SAFETY: `name` ends with a NUL; `group`, `result` and the `size` bytes of `buffer` can be
        // written, and live until after the last use of `result`.
        let error = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                group.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut result,
            )
        };
        match error {
            0 if result.is_null() => return Ok(None),
            // SAFETY: not null, so it points to `group`, which the call has filled in.
            0 => return Ok(Some(unsafe { (*result).gr_gid })),
            libc::EINTR => {}
            libc::ERANGE if size < LAST_BUFFER => size *= 4,
            errno => return Err(Errno::from_raw(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_exist_have_a_number() {
        assert_eq!(gid_of_group(c"root"), Ok(Some(0)));
        assert_eq!(gid_of_group(c"no-such-group"), Ok(None));
    }
}
