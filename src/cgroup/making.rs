//! Making the directories of claims, and writing their classids.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::directory::{CLASSID, MODE, PROCS, make, make_directory, write_whole};
use super::error::Error;
use super::lock::Locked;
use crate::tree::Claim;
use crate::units::ClassId;

impl Locked {
    /// Makes the claim's directory, with those above it up to the instance's, and writes its
    /// classid. A second call changes nothing.
    pub fn make(&self, claim: &Claim, classid: ClassId) -> Result<(), Error> {
        let path = self.directory(claim);
        // For all claims but the first the directories above exist.
        match make(&path, MODE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_all(claim)?,
            made => made.map_err(Error::io("make", &path))?,
        }
        self.write(claim, classid)
    }

    fn make_all(&self, claim: &Claim) -> Result<(), Error> {
        let mut path = self.root().to_path_buf();
        // The hierarchy may have been unmounted a moment ago, and its mount point be a plain folder
        // now.
        if self.places() && !path.exists() && !path.with_file_name(PROCS).exists() {
            return Err(Error::NotMounted);
        }
        make_directory(&path)?;
        for part in Path::new(&claim.to_string()) {
            path.push(part);
            make_directory(&path)?;
        }
        Ok(())
    }

    /// Writes the classid, which retags at once the sockets of every process in the directory, and
    /// reads it back: the kernel accepts some values that it does not store (`0x100000000` becomes
    /// 0).
    pub fn write(&self, claim: &Claim, classid: ClassId) -> Result<(), Error> {
        let path = self.directory(claim).join(CLASSID);
        if !self.places() {
            return write_whole(&path, &format!("{}\n", classid.0));
        }
        let data = format!("0x{:08x}", classid.0);
        let refused = |source| Error::Write { data: data.clone(), path: path.clone(), source };
        // Never making the file: where it is missing this is no cgroup.
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(refused)?;
        // One write(2), since the kernel would read two numbers in two.
        file.write_all(data.as_bytes()).map_err(refused)?;
        let mut buffer = [0; 16];
        let length = file.read_at(&mut buffer, 0).map_err(Error::io("read", &path))?;
        let found = String::from_utf8_lossy(&buffer[..length]);
        if found.trim().parse() == Ok(classid.0) {
            Ok(())
        } else {
            let found = found.trim().to_string();
            Err(Error::ReadBack { data, path, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::cgroup::Instance;

    fn claim(path: &str) -> Claim {
        path.parse().unwrap()
    }

    #[test]
    fn an_error_says_path_and_data() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        fs::write(folder.path().join(PROCS), "").unwrap();
        let locked = instance.lock(Duration::ZERO).unwrap();
        let error = locked.make(&claim("user/bob"), ClassId(0x1_001a)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot write 0x0001001a to {}/user/bob/net_cls.classid: No such file or directory \
                 (os error 2)",
                instance.root().display()
            )
        );
    }

    #[test]
    fn nothing_is_made_where_no_hierarchy_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        let locked = instance.lock(Duration::ZERO).unwrap();
        // What was mounted here when the lock was taken is gone.
        fs::remove_dir_all(instance.root()).unwrap();
        let made = locked.make(&claim("user/bob"), ClassId(0x1_001a));
        assert!(matches!(made, Err(Error::NotMounted)), "{made:?}");
        assert!(!instance.root().exists());
    }
}
