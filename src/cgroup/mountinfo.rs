//! `/proc/PID/mountinfo` (proc_pid_mountinfo(5)) as values, and which of the mounts is the
//! `net_cls` hierarchy. Pure: text in, values out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of mountinfo, without the fields that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's number (proc(5), `mountinfo`, field 1).
    pub id: u32,
    /// The number of the mount on which this one is mounted.
    pub parent: u32,
    /// The directory of the file system that is mounted: `/`, except for bind mounts and mounts
    /// made in a cgroup namespace.
    pub root: PathBuf,
    /// Where it is mounted, as this process sees it.
    pub point: PathBuf,
    /// The options of this mount (`ro`, `nosuid`, …).
    pub options: Vec<String>,
    /// `cgroup` for a v1 hierarchy.
    pub fstype: String,
    /// The options of the file system; those of cgroup v1 name the controllers of the hierarchy.
    pub super_options: Vec<String>,
}

impl Mount {
    /// The cgroup v1 controllers of this hierarchy, in the kernel's order; empty for any other
    /// mount.
    pub fn has_controller(&self, name: &str) -> bool {
        self.fstype == "cgroup" && self.super_options.iter().any(|option| option == name)
    }

    /// Whether nothing can be written by this mount.
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

/// All mounts; a line that has not the shape that the kernel writes is skipped, since one strange
/// mount must not hide the others.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - cgroup name rw,net_cls`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let _device = fields.next()?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options = list(fields.next()?);
    // Any number of optional fields, ended by a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let fstype = String::from_utf8_lossy(fields.next()?).into_owned();
    let _source = fields.next()?;
    let super_options = list(fields.next()?);
    Some(Mount {
        id,
        parent,
        root: root.into(),
        point: point.into(),
        options,
        fstype,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn list(field: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(field).split(',').map(str::to_string).collect()
}

/// Space, tab, newline, backslash and `#` are written as three octal digits (`mangle_path`,
/// fs/seq_file.c).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\")?.get(..3)?;
    let digits = std::str::from_utf8(digits).ok()?;
    digits
        .bytes()
        .all(|b| (b'0'..=b'7').contains(&b))
        .then(|| u8::from_str_radix(digits, 8).ok())?
}

/// The mount through which the root of the `net_cls` hierarchy can be reached: known by the
/// hierarchy's own options (its controllers), never by its path; also where it is paired
/// (`net_cls,net_prio`). One that another mount covers cannot be reached; one that can be written
/// goes before one that cannot.
pub fn net_cls_mount(mounts: &[Mount]) -> Option<&Mount> {
    mounts
        .iter()
        .filter(|mount| mount.has_controller("net_cls"))
        .filter(|mount| mount.root == Path::new("/"))
        .filter(|mount| !covered(mount, mounts))
        .min_by_key(|mount| mount.read_only())
}

/// Whether the mount is in a directory of cgroup v2, where programs take it for a part of that.
pub(super) fn is_below_v2(mount: &Mount, mounts: &[Mount]) -> bool {
    mounts.iter().any(|it| it.id == mount.parent && it.fstype == "cgroup2")
}

/// The mount through which the root of the cgroup v2 hierarchy, as far as this process sees it, can
/// be reached.
pub(super) fn unified_mount(mounts: &[Mount]) -> Option<&Mount> {
    mounts
        .iter()
        .filter(|mount| mount.fstype == "cgroup2" && mount.root == Path::new("/"))
        .find(|mount| !covered(mount, mounts))
}

/// Whether another mount hides this one, because it is mounted over the same directory, or over one
/// on the way there.
fn covered(mount: &Mount, mounts: &[Mount]) -> bool {
    // An initramfs root is its own parent, and hides nothing by that.
    let mounts = || mounts.iter().filter(|other| other.id != other.parent);
    if mounts().any(|other| other.parent == mount.id && other.point == mount.point) {
        return true;
    }
    let mut child = mount;
    // The chain of parents ends at the root of the namespace, whose parent is not listed. Bounded,
    // in case the text does not come from a kernel.
    for _ in 0..mounts().count() {
        let hides = |other: &Mount| {
            other.parent == child.parent
                && other.id != child.id
                && child.point != other.point
                && child.point.starts_with(&other.point)
        };
        if mounts().any(hides) {
            return true;
        }
        match mounts().find(|other| other.id == child.parent) {
            Some(parent) if parent.id != child.id => child = parent,
            _ => break,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 21 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw shared:10 master:2 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid - cgroup cgroup rw,net_cls,net_prio
34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    fn point(text: &str) -> Option<PathBuf> {
        net_cls_mount(&parse_mountinfo(text.as_bytes())).map(|mount| mount.point.clone())
    }

    #[test]
    fn a_paired_hierarchy_is_found_by_its_controllers() {
        assert_eq!(point(DEBIAN), Some("/sys/fs/cgroup/net_cls,net_prio".into()));
    }

    #[test]
    fn a_path_that_says_net_cls_is_no_proof() {
        let text = "40 21 0:50 / /run/net_cls rw - tmpfs net_cls rw\n\
                    41 21 0:51 / /cg rw - cgroup net_cls rw,name=net_cls\n";
        assert_eq!(point(text), None);
    }

    #[test]
    fn only_a_mount_of_the_hierarchys_root_will_do() {
        let bind = "40 21 0:50 /docker/1 /cg/bind rw - cgroup cgroup rw,net_cls\n";
        assert_eq!(point(bind), None);
        let both = format!("{bind}41 21 0:50 / /cg/whole rw - cgroup cgroup rw,net_cls\n");
        assert_eq!(point(&both), Some("/cg/whole".into()));
    }

    #[test]
    fn below_cgroup_v2_is_what_is_mounted_in_a_directory_of_it() {
        let v2 = "30 21 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let of = |text: &str| {
            let mounts = parse_mountinfo(text.as_bytes());
            net_cls_mount(&mounts).map(|mount| is_below_v2(mount, &mounts))
        };
        let below = "31 30 0:50 / /sys/fs/cgroup/net_cls rw - cgroup net_cls rw,net_cls\n";
        assert_eq!(of(&format!("{v2}{below}")), Some(true));
        let own = "31 21 0:50 / /run/shaper/net_cls rw - cgroup net_cls rw,net_cls\n";
        assert_eq!(of(&format!("{v2}{own}")), Some(false));
        assert_eq!(of(DEBIAN), Some(false), "beside it, as hosts with cgroup v1 have it");
    }

    #[test]
    fn a_mount_that_can_be_written_goes_first() {
        let text = "40 21 0:50 / /a ro - cgroup cgroup rw,net_cls\n\
                    41 21 0:50 / /b rw - cgroup cgroup rw,net_cls\n";
        assert_eq!(point(text), Some("/b".into()));
    }

    #[test]
    fn a_mount_under_another_one_cannot_be_reached() {
        let over_itself =
            format!("{DEBIAN}50 33 0:60 / /sys/fs/cgroup/net_cls,net_prio rw - tmpfs t rw\n");
        assert_eq!(point(&over_itself), None);
        let over_a_parent = format!("{DEBIAN}50 21 0:60 / /sys rw - sysfs sysfs rw\n");
        assert_eq!(point(&over_a_parent), None);
        let elsewhere = format!("{DEBIAN}50 21 0:60 / /sysx rw - sysfs sysfs rw\n");
        assert!(point(&elsewhere).is_some());
    }

    #[test]
    fn an_initramfs_root_that_is_its_own_parent_hides_nothing() {
        let text = "34 34 0:2 / / rw - rootfs rootfs rw\n\
                    35 34 0:20 / /run rw - tmpfs tmpfs rw\n\
                    36 35 0:50 / /run/shaper/net_cls rw - cgroup net_cls rw,net_cls\n";
        assert_eq!(point(text), Some("/run/shaper/net_cls".into()));
    }

    #[test]
    fn escapes_are_three_octal_digits() {
        let text = r"40 21 0:50 / /a\040b\134c\011 rw - cgroup cgroup rw,net_cls";
        assert_eq!(point(text), Some("/a b\\c\t".into()));
        assert_eq!(unescape(br"\04"), OsString::from(r"\04"));
        assert_eq!(unescape(br"\999"), OsString::from(r"\999"));
    }

    #[test]
    fn strange_lines_are_skipped() {
        let text = format!("\nnonsense\n1 2 3\n40 x 0:1 / / rw - a b c\n{DEBIAN}");
        assert_eq!(parse_mountinfo(text.as_bytes()).len(), 5);
    }
}
