//! The memory of the process: how much it may use, the account that requests are charged to, and
//! returning what is not used.

mod charged;
mod kept;
pub mod parachute;
mod pool;
mod shares;
mod shelf;
mod trim;
mod zeroed;

use std::fs;
use std::path::{Path, PathBuf};

pub use charged::charged;
pub use kept::{any_values, keep, last_kept, release_kept, take_kept, zeros};
pub use pool::{Grant, Pool};
pub use shares::{Account, usual_inputs, usual_work};
pub use shelf::Shelf;
pub use trim::{map_large_blocks, trim};
pub use zeroed::{Zeroed, reserve, zeroed};

/// Returns the memory this process may use, in bytes: the lowest limit of its cgroup (version 1 or
/// 2) and its ancestors, if any, and of its address space; else the memory of the machine.
pub fn limit() -> Option<u64> {
    limit_in(Path::new("/"))
}

fn limit_in(root: &Path) -> Option<u64> {
    let total = meminfo(root, "MemTotal:");
    let limits = cgroup_folders(root).into_iter().filter_map(|folder| {
        let text = fs::read_to_string(folder.join("memory.max"))
            .or_else(|_| fs::read_to_string(folder.join("memory.limit_in_bytes")));
        // Version 2 writes `max` for no limit; version 1 a number larger than any memory.
        text.ok()?.trim().parse().ok()
    });
    // Mapped but not resident memory (libraries, stacks) counts against the address space, too.
    let mapped =
        |text: &str| Some(kibibytes(text, "VmSize:")?.saturating_sub(kibibytes(text, "VmRSS:")?));
    let idle =
        fs::read_to_string(root.join("proc/self/status")).ok().and_then(|text| mapped(&text));
    let space = address_space_limit(root).map(|limit| limit.saturating_sub(idle.unwrap_or(0)));
    limits.chain(total).chain(space).min()
}

/// Returns the folders of this process's memory cgroup and all its ancestors.
///
/// In a container, the path in `/proc/self/cgroup` may be the host's, which is not visible inside;
/// the container's own cgroup is then at the root of the hierarchy.
fn cgroup_folders(root: &Path) -> Vec<PathBuf> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut folders = Vec::new();
    for line in membership.lines() {
        // ID:CONTROLLERS:PATH, with empty controllers in version 2 (cgroups(7)).
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let mount = match controllers {
            "" => root.join("sys/fs/cgroup"),
            c if c.split(',').any(|c| c == "memory") => root.join("sys/fs/cgroup/memory"),
            _ => continue,
        };
        let own = mount.join(path.trim_start_matches('/'));
        folders.extend(own.ancestors().take_while(|a| a.starts_with(&mount)).map(Path::to_owned));
    }
    folders
}

/// Returns the memory still usable without swapping, in bytes: the minimum over the machine, the
/// cgroups and the address space. `None` if the system does not report it.
pub fn available() -> Option<u64> {
    let root = Path::new("/");
    let machine = meminfo(root, "MemAvailable:");
    let groups = cgroup_folders(root).into_iter().filter_map(|folder| {
        let number = |names: [&str; 2]| -> Option<u64> {
            names.iter().find_map(|n| fs::read_to_string(folder.join(n)).ok()?.trim().parse().ok())
        };
        let limit = number(["memory.max", "memory.limit_in_bytes"])?;
        let used = number(["memory.current", "memory.usage_in_bytes"])?;
        Some(limit.saturating_sub(used))
    });
    groups.chain(machine).chain(address_space()).min()
}

/// Returns what is left of this process's address space limit, if it has one.
fn address_space() -> Option<u64> {
    let limit = address_space_limit(Path::new("/"))?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(limit.saturating_sub(kibibytes(&status, "VmSize:")?))
}

/// Returns this process's address space limit (`ulimit -v`), if it has one.
fn address_space_limit(root: &Path) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the resident memory of this process in bytes.
pub fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Returns the resident memory of this process that is not backed by files, in bytes: heaps and
/// stacks.
pub fn anonymous() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

fn meminfo(root: &Path, field: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string(root.join("proc/meminfo")).ok()?, field)
}

/// Parses a field such as `VmRSS:    1234 kB` into bytes.
fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let number: u64 = value.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_lowest_limit_counts_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(limit_in(root), None);
        write(root, "proc/meminfo", "MemTotal:       1000 kB\nMemFree:  5 kB\n");
        assert_eq!(limit_in(root), Some(1_024_000));

        write(root, "proc/self/cgroup", "0::/a/b\n");
        write(root, "sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(limit_in(root), Some(1_024_000));
        write(root, "sys/fs/cgroup/a/memory.max", "500000\n");
        assert_eq!(limit_in(root), Some(500_000), "of the group above");
        write(root, "sys/fs/cgroup/a/b/memory.max", "400000\n");
        assert_eq!(limit_in(root), Some(400_000));

        // A container that sees the host's path, but only its own group's files at the mount.
        write(root, "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n");
        write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "300000\n");
        assert_eq!(limit_in(root), Some(300_000));
        write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_in(root), Some(1_024_000));

        let limits =
            "Limit      Soft Limit  Hard Limit  Units\nMax address space  700000 800000 bytes\n";
        write(root, "proc/self/limits", limits);
        assert_eq!(limit_in(root), Some(700_000));
        write(root, "proc/self/status", "VmSize:    200 kB\nVmRSS:    100 kB\n");
        assert_eq!(limit_in(root), Some(700_000 - 102_400));
    }

    #[test]
    fn this_process_has_memory() {
        let (limit, resident) = (limit().unwrap(), resident().unwrap());
        assert!(resident > 1 << 20 && resident < limit, "{resident} of {limit}");
        assert!(available().unwrap() > 0);
    }
}
