//! The way to a file: each folder and symbolic link that the kernel passes when it looks a path up.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

/// How many links the kernel follows in one path (include/linux/namei.h, `MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// A folder, a link, or the file at the end.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The path, without symbolic links in it.
    pub path: PathBuf,
    /// The metadata of the thing itself, not of the target of a link.
    pub meta: Metadata,
}

impl Passed {
    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.meta.is_symlink()
    }
}

/// Every folder and link on the way to `path`, from `/` on, and the file itself.
///
/// # Errors
/// Those of lstat(2) and readlink(2); ELOOP.
pub fn way(path: &Path) -> io::Result<Vec<Passed>> {
    let mut passed = Vec::new();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    let mut left: VecDeque<OsString> = VecDeque::new();
    push_front(&mut left, &std::path::absolute(path)?);
    pass(&mut passed, &here)?;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        if !pass(&mut passed, &next)? {
            here = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        push_front(&mut left, &target);
    }
    Ok(passed)
}

/// Notes the folder, link or file at `path`, once; whether it is a link.
fn pass(passed: &mut Vec<Passed>, path: &Path) -> io::Result<bool> {
    let meta = path.symlink_metadata()?;
    let is_link = meta.is_symlink();
    if passed.iter().all(|passed| passed.path != path) {
        passed.push(Passed { path: path.to_path_buf(), meta });
    }
    Ok(is_link)
}

/// `..` of a real folder is the one above; that of a link's target too, since links are followed
/// first.
fn push_front(left: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push_front(name.to_os_string()),
            Component::ParentDir => left.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_folder_and_link_is_passed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        for name in ["etc", "srv", "srv/real"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("srv/real/p.yaml"), "").unwrap();
        symlink("../srv/link", path("etc/p.yaml")).unwrap();
        symlink(path("srv/real/./p.yaml"), path("srv/link")).unwrap();
        let passed = way(&path("etc/p.yaml")).unwrap();
        let below: Vec<String> = passed
            .iter()
            .filter_map(|passed| Some(passed.path.strip_prefix(&root).ok()?.display().to_string()))
            .collect();
        assert_eq!(
            below,
            ["", "etc", "etc/p.yaml", "srv", "srv/link", "srv/real", "srv/real/p.yaml"]
        );
        assert_eq!(passed[0].path, Path::new("/"));
        symlink("b", path("a")).unwrap();
        symlink("a", path("b")).unwrap();
        assert_eq!(way(&path("a")).unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        assert_eq!(way(&path("etc/none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
