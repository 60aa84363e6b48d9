//! One look at the directories of an instance: the claims with their classids, and directories of
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};

use super::directory::{CLASSID, parse_classid, read_classid, subdirectories, vanished};
use super::error::Error;
use super::instance::{Instance, Root};
use super::layout::{RETIRED, ROOMS, WITHOUT_CLAIMS};
use crate::sys::threads::in_parts;
use crate::tree::{Claim, Foreign, Owner};
use crate::units::ClassId;

impl Instance {
    /// All claims with their classids, and the directories that are not ours. An instance that does
    /// not exist has neither.
    pub fn observe(&self) -> Result<(BTreeMap<Claim, ClassId>, Vec<Foreign>), Error> {
        self.look(Depth::Whole)
    }

    /// The classids of all claims but `pinned` ones, whose are those of the claims above them:
    /// without a look below, which takes as long as reading the classids does.
    pub fn classids(&self) -> Result<BTreeMap<Claim, ClassId>, Error> {
        self.look(Depth::Classids).map(|(claims, _)| claims)
    }

    fn look(&self, depth: Depth) -> Result<(BTreeMap<Claim, ClassId>, Vec<Foreign>), Error> {
        let mut found = Found::default();
        for room in subdirectories(self.root())? {
            let path = self.root().join(&room);
            if WITHOUT_CLAIMS.contains(&room.as_str()) {
                continue;
            }
            if !ROOMS.contains(&room.as_str()) {
                found.foreign(&path, None);
                continue;
            }
            let Some(folder) = Folder::open(path, self.kind())? else { continue };
            let names = subdirectories(&folder.path)?;
            for part in in_parts(&names, |names| observe_claims(&room, names, &folder, depth)) {
                let part = part?;
                found.claims.extend(part.claims);
                found.foreign.extend(part.foreign);
            }
        }
        let mut claims = found.claims.into_iter().collect();
        let retired = self.retired_since(&claims)?;
        claims.extend(retired);
        Ok((claims, found.foreign))
    }

    /// The retired claims that are not among `claims`, which were read one after the other: one
    /// that retires meanwhile has its directory in `retired` before its owner's goes, and where
    /// `retired` was read before that and the owner's after it, neither was seen.
    fn retired_since(
        &self,
        claims: &BTreeMap<Claim, ClassId>,
    ) -> Result<Vec<(Claim, ClassId)>, Error> {
        let path = self.root().join(RETIRED);
        let Some(folder) = Folder::open(path, self.kind())? else { return Ok(Vec::new()) };
        let mut found = Found::default();
        for name in subdirectories(&folder.path)? {
            let claim = canonical(&format!("{RETIRED}/{name}"));
            if let Some(claim) = claim.filter(|claim| !claims.contains_key(claim)) {
                found.claim(claim, &folder, &name)?;
            }
        }
        Ok(found.claims)
    }

    /// The names of all directories of claims, but those of `pinned` ones: what a look finds is
    /// another where they are.
    pub fn listing(&self) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        for room in subdirectories(self.root())? {
            if ROOMS.contains(&room.as_str()) {
                all.extend(subdirectories(&self.root().join(&room))?);
            }
            all.push(room);
        }
        Ok(all)
    }

    /// `claims`, which an earlier look found, with today's classids of the directories in
    /// `touched`. A directory that has something else than a classid is no claim.
    pub fn observe_again(
        &self,
        mut claims: BTreeMap<Claim, ClassId>,
        touched: &BTreeSet<Claim>,
    ) -> Result<BTreeMap<Claim, ClassId>, Error> {
        for claim in touched {
            let path = self.directory(claim).join(CLASSID);
            match read_classid(&path) {
                Ok(Some(classid)) => drop(claims.insert(claim.clone(), classid)),
                Ok(None) => drop(claims.remove(claim)),
                Err(error)
                    if vanished(&error) && !self.places() && path.with_file_name("").is_dir() =>
                {
                    claims.insert(claim.clone(), ClassId::NONE);
                }
                Err(error) if vanished(&error) => drop(claims.remove(claim)),
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(claims)
    }
}

/// How much of the directories is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Each claim's classid.
    Classids,
    /// What is below a claim, too.
    Whole,
}

#[derive(Default)]
struct Found {
    claims: Vec<(Claim, ClassId)>,
    foreign: Vec<Foreign>,
}

impl Found {
    fn claim(&mut self, claim: Claim, folder: &Folder, name: &str) -> Result<(), Error> {
        match folder.classid(name) {
            Ok(Some(classid)) => self.claims.push((claim, classid)),
            Ok(None) => self.foreign(&folder.path.join(name), None),
            // Removed since it was listed.
            Err(error) if vanished(&error) => {}
            Err(error) => {
                return Err(Error::io("read", &folder.path.join(name).join(CLASSID))(error));
            }
        }
        Ok(())
    }

    fn foreign(&mut self, path: &Path, below: Option<Claim>) {
        let classid = read_classid(&path.join(CLASSID)).ok().flatten().unwrap_or_default();
        let path = path.display().to_string();
        self.foreign.push(Foreign::Directory { path, classid, below });
    }
}

fn observe_claims(
    room: &str,
    names: &[String],
    folder: &Folder,
    depth: Depth,
) -> Result<Found, Error> {
    let mut found = Found::default();
    for name in names {
        observe_claim(room, name, (folder, depth), &mut found)?;
    }
    Ok(found)
}

/// Reads the claim `room/name`: its classid, and where that is wanted the directories below it.
fn observe_claim(
    room: &str,
    name: &str,
    (folder, depth): (&Folder, Depth),
    found: &mut Found,
) -> Result<(), Error> {
    let Some(claim) = canonical(&format!("{room}/{name}")) else {
        found.foreign(&folder.path.join(name), None);
        return Ok(());
    };
    found.claim(claim.clone(), folder, name)?;
    if depth == Depth::Classids || !folder.has_subdirectories(name)? {
        return Ok(());
    }
    let may_be_pinned = match &claim {
        Claim::Owner(owner @ (Owner::User(_) | Owner::Uid(_) | Owner::Subuids(_))) => {
            Some(owner.clone())
        }
        _ => None,
    };
    let Some(own) = Folder::open(folder.path.join(name), folder.kind)? else { return Ok(()) };
    for name in subdirectories(&own.path)? {
        let below = own.path.join(&name);
        match &may_be_pinned {
            Some(owner) if name == "pinned" => {
                let pinned = Claim::Pinned(owner.clone());
                found.claim(pinned.clone(), &own, &name)?;
                if own.has_subdirectories(&name)? {
                    // A foreign directory here also keeps the claim above from being removed.
                    found.foreign(&below, Some(pinned));
                    found.foreign(&below, Some(claim.clone()));
                }
            }
            _ => found.foreign(&below, Some(claim.clone())),
        }
    }
    Ok(())
}

/// The claim that this path names, if it is spelled as shaper spells it: `uid/007` is foreign.
fn canonical(relative: &str) -> Option<Claim> {
    relative.parse::<Claim>().ok().filter(|claim| claim.to_string() == relative)
}

/// An open directory, from which names in it are looked up: that saves the kernel the walk from the
/// root for each of 10,000.
struct Folder {
    path: PathBuf,
    handle: OwnedFd,
    kind: Root,
}

impl Folder {
    /// Opens a directory; `None`: it does not exist (any more).
    fn open(path: PathBuf, kind: Root) -> Result<Option<Folder>, Error> {
        match File::open(&path) {
            Ok(file) => Ok(Some(Folder { path, handle: file.into(), kind })),
            Err(error) if vanished(&error) => Ok(None),
            Err(error) => Err(Error::io("list", &path)(error)),
        }
    }

    /// kernfs counts subdirectories in the link count (`kernfs_refresh_inode`, fs/kernfs/inode.c),
    /// as most file systems do: a count of 2 means none. This saves listing each of 10,000
    /// directories.
    fn has_subdirectories(&self, name: &str) -> Result<bool, Error> {
        match fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.st_nlink != 2),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(Error::io("inspect", &self.path.join(name))(errno.into())),
        }
    }

    /// As [`read_classid`], of a directory in this one. Every cgroup has the file; a plain
    /// directory has it once it is whole.
    fn classid(&self, name: &str) -> io::Result<Option<ClassId>> {
        let path = format!("{name}/{CLASSID}");
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(&self.handle, path.as_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) if self.kind == Root::Plain && self.path.join(name).is_dir() => {
                Ok(Some(ClassId::NONE))
            }
            file => parse_classid(&File::from(file?)),
        }
    }
}
