//! The note of which network namespace an instance shapes: an empty directory `netns/<inode>` in
//! the instance's. An instance that is named after its namespace (`shaper-<inode>`) needs none.

use std::collections::BTreeMap;

use super::directory::{make_directory, remove, remove_with_notes, subdirectories};
use super::error::Error;
use super::hierarchy::Hierarchy;
use super::instance::Instance;
use super::layout::NETNS;

/// The default name of the instance that shapes this network namespace, which is not the host's.
pub fn named_after(netns: u64) -> String {
    format!("shaper-{netns}")
}

impl Instance {
    /// Notes the inode of the network namespace that the instance shapes, and removes any other
    /// note.
    pub fn note_namespace(&self, netns: u64) -> Result<(), Error> {
        let name = self.name();
        if name == named_after(netns) {
            return Ok(());
        }
        let path = self.root().join(NETNS);
        let note = netns.to_string();
        for other in subdirectories(&path)?.iter().filter(|name| **name != note) {
            remove(&path.join(other))?;
        }
        make_directory(&path)?;
        make_directory(&path.join(note))
    }

    /// The namespaces of the notes.
    pub(super) fn noted_namespaces(&self) -> Result<Vec<u64>, Error> {
        let notes = subdirectories(&self.root().join(NETNS))?;
        Ok(notes.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Whether the instance shapes another network namespace, as far as it has a note.
    pub fn shapes_another(&self, netns: u64) -> bool {
        let noted = self.noted_namespaces().unwrap_or_default();
        !noted.is_empty() && !noted.contains(&netns)
    }

    pub(super) fn forget_namespace(&self) -> Result<(), Error> {
        remove_with_notes(&self.root().join(NETNS))
    }
}

impl Hierarchy {
    /// Whether the hierarchy has no directories; false where that is not known.
    pub fn is_empty(&self) -> bool {
        subdirectories(&self.path).is_ok_and(|names| names.is_empty())
    }

    /// Network namespaces that instances other than `own` shape, by inode, and the instances'
    /// names.
    ///
    /// # Errors
    /// The hierarchy cannot be listed. No answer is made up: an instance that counted as the only
    /// one would take processes of others.
    pub fn other_instances(&self, own: &str) -> Result<BTreeMap<u64, String>, Error> {
        let mut others = BTreeMap::new();
        for name in subdirectories(&self.path)? {
            if name == own {
                continue;
            }
            match name.strip_prefix("shaper-").and_then(|inode| inode.parse().ok()) {
                Some(inode) => others.extend([(inode, name)]),
                None => {
                    let noted = self.instance(&name).noted_namespaces()?;
                    others.extend(noted.into_iter().map(|inode| (inode, name.clone())));
                }
            }
        }
        Ok(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_known_by_its_note_or_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { path: folder.path().to_path_buf() };
        for name in ["blue", "shaper", "shaper-7", "docker"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let blue = hierarchy.instance("blue");
        blue.note_namespace(3).unwrap();
        blue.note_namespace(4).unwrap();
        hierarchy.instance("shaper").note_namespace(1).unwrap();
        hierarchy.instance("shaper-7").note_namespace(7).unwrap();
        assert!(!folder.path().join("shaper-7/netns").exists());
        assert!(blue.shapes_another(3) && !blue.shapes_another(4));
        assert!(!hierarchy.instance("docker").shapes_another(3), "it has no note");
        let named = |inode: u64, name: &str| (inode, name.to_string());
        let all = [named(1, "shaper"), named(4, "blue"), named(7, "shaper-7")];
        assert_eq!(hierarchy.other_instances("green").unwrap(), BTreeMap::from(all.clone()));
        assert_eq!(
            hierarchy.other_instances("blue").unwrap(),
            BTreeMap::from([all[0].clone(), all[2].clone()])
        );
        assert!(blue.lock(std::time::Duration::ZERO).unwrap().remove_if_empty().unwrap());
    }

    #[test]
    fn a_hierarchy_that_cannot_be_listed_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hierarchy = Hierarchy { path: file.path().to_path_buf() };
        assert!(hierarchy.other_instances("shaper").is_err());
    }
}
