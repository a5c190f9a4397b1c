//! Where on a device a release may have files. [`crate::path`] defines the syntax of paths; which folders are allowed is for the
//! device's owner to decide, within limits that no policy can change.

use crate::manifest::Manifest;
use crate::path::{DEFAULT_PREFIXES, DevicePath, UNIT_KINDS};

/// Prefixes below which no release may have files, whoever signed it and whatever a policy says, with the reason. Upper and lower
/// case count as the same. Some folders have a second name below `/var` on systems whose `/` is an image.
pub const NEVER: [(&str, &str); 52] = [
    // with these, a release could decide for itself what a release may do
    ("/etc/flotta/", AGENT),
    ("/var/lib/flotta", AGENT),
    ("/var/lib/containers/", IMAGES),
    // a device that does not boot cannot be brought back by a release
    ("/boot/", BOOT),
    ("/efi/", BOOT),
    ("/etc/kernel/", BOOT),
    ("/etc/grub", BOOT),
    ("/etc/default/grub", BOOT),
    ("/etc/dracut", BOOT),
    ("/etc/initramfs-tools/", BOOT),
    ("/etc/fstab", BOOT),
    ("/etc/crypttab", BOOT),
    ("/etc/selinux/", BOOT),
    // packages and images of the system install these, with their own signatures and rollback
    ("/usr/", SYSTEM),
    ("/var/usrlocal/", SYSTEM),
    ("/bin/", SYSTEM),
    ("/sbin/", SYSTEM),
    ("/lib/", SYSTEM),
    ("/lib32/", SYSTEM),
    ("/lib64/", SYSTEM),
    ("/ostree/", SYSTEM),
    ("/sysroot/", SYSTEM),
    // no file in them is permanent
    ("/proc/", KERNEL),
    ("/sys/", KERNEL),
    ("/dev/", KERNEL),
    ("/run/", KERNEL),
    ("/var/run/", KERNEL),
    ("/var/lock/", KERNEL),
    // with their backups, `passwd-` and the like
    ("/etc/passwd", ACCOUNTS),
    ("/etc/group", ACCOUNTS),
    ("/etc/shadow", ACCOUNTS),
    ("/etc/gshadow", ACCOUNTS),
    ("/etc/subuid", ACCOUNTS),
    ("/etc/subgid", ACCOUNTS),
    ("/etc/userdb/", ACCOUNTS),
    ("/etc/sysusers.d/", ACCOUNTS),
    ("/etc/nsswitch.conf", ACCOUNTS),
    // these define who may log in, and as which other user one may act
    ("/etc/sudo", ACCESS),
    ("/etc/doas", ACCESS),
    ("/etc/pam", ACCESS),
    ("/etc/authselect/", ACCESS),
    ("/etc/security/", ACCESS),
    ("/etc/polkit-1/", ACCESS),
    ("/etc/credstore", ACCESS),
    ("/etc/ssh/", ACCESS),
    ("/etc/dropbear/", ACCESS),
    ("/root/", ACCESS),
    ("/var/roothome/", ACCESS),
    ("/home/", ACCESS),
    ("/var/home/", ACCESS),
    // these identify the machine, or are loaded by every program
    ("/etc/machine-id", IDENTITY),
    ("/etc/ld.so.", IDENTITY),
];

const AGENT: &str = "it is Flotta's own";
const IMAGES: &str = "it is where Podman keeps images and containers";
const BOOT: &str = "it is what the machine boots with";
const SYSTEM: &str = "it is the system's own";
const KERNEL: &str = "it belongs to the kernel, or is gone after the next boot";
const ACCOUNTS: &str = "it is a database of accounts";
const ACCESS: &str = "it defines who may log in, or act as another user";
const IDENTITY: &str = "every program on the machine depends on it";

/// Folders in which systemd or Quadlet finds units, at any depth.
const UNIT_FOLDERS: [&str; 2] = ["/etc/systemd/", "/etc/containers/systemd/"];
/// The names of Flotta's own units, without suffixes.
const OWN_UNITS: [&str; 4] = [
    "flotta",
    "flotta-agent",
    "flotta-telemetry",
    "flotta-ostree",
];

/// Whether this is a file of one of Flotta's own units, or a folder of its drop-ins: `flotta-agent.service`,
/// `flotta-agent.service.d`, and `flotta-.service.d`, whose drop-ins apply to every unit with this prefix. Quadlet makes a unit
/// from a file with such a name, and that unit overrides the one in `/usr`.
fn is_own_unit(name: &str) -> bool {
    let name = name.strip_suffix(".d").unwrap_or(name);
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return false;
    };
    let is_unit = UNIT_KINDS.contains(&kind) || ["container", "kube"].contains(&kind);
    let is_of_several = stem.ends_with('-') && OWN_UNITS.iter().any(|own| own.starts_with(stem));
    is_unit && (OWN_UNITS.contains(&stem) || is_of_several)
}

/// Whose files are in a folder of Flotta's, and a release's own.
const WORKLOADS: &str = "/etc/flotta/workloads/";

/// What a release may do on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Folders beyond [`DEFAULT_PREFIXES`].
    allow: Vec<String>,
}

/// A path that a policy forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is forbidden on this device: {why}")]
pub struct Forbidden {
    path: DevicePath,
    why: String,
}

/// Why a policy cannot allow a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{prefix}` cannot be allowed: {why}")]
pub struct NotAllowable {
    prefix: String,
    why: String,
}

impl Policy {
    /// Allows one more folder. It ends in `/`, and is at least two levels deep: nobody means to allow all of `/etc/`.
    pub fn allow(&mut self, prefix: &str) -> Result<(), NotAllowable> {
        let refused = |why: String| NotAllowable {
            prefix: prefix.chars().take(120).collect(),
            why,
        };
        if !prefix.ends_with('/') {
            return Err(refused("a folder ends in `/`".to_owned()));
        }
        let within: Result<DevicePath, _> = format!("{prefix}file").parse();
        if let Err(error) = within {
            return Err(refused(error.why().to_owned()));
        }
        if prefix.matches('/').count() < 3 {
            let why = "it is a whole part of the machine: name a folder in it";
            return Err(refused(why.to_owned()));
        }
        if let Some(why) = never(prefix) {
            return Err(refused(format!("{why}, whatever a policy says")));
        }
        self.allow.push(prefix.to_owned());
        Ok(())
    }

    /// Returns the folders in which a release may have files.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let more = self.allow.iter().map(String::as_str);
        DEFAULT_PREFIXES.into_iter().chain(more)
    }

    /// Checks that a release may have a file at this path.
    pub fn check(&self, path: &DevicePath) -> Result<(), Forbidden> {
        let text = path.as_str();
        let why = match never(text) {
            Some(why) => format!("{why}, whatever a policy says"),
            None if self.prefixes().any(|prefix| text.starts_with(prefix)) => return Ok(()),
            None => "its policy allows no folder that it is in".to_owned(),
        };
        Err(Forbidden {
            path: path.clone(),
            why,
        })
    }

    /// Checks that a device may have all files of a manifest.
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), Forbidden> {
        let mut files = manifest.files.iter();
        files.try_for_each(|file| self.check(&file.path))
    }
}

/// Returns why no policy can allow a path; `None` if one can.
pub fn never(path: &str) -> Option<&'static str> {
    // a file system may ignore case
    let path = path.to_ascii_lowercase();
    if path.starts_with(WORKLOADS) {
        return None;
    }
    if let Some((_, why)) = NEVER.iter().find(|(prefix, _)| path.starts_with(prefix)) {
        return Some(why);
    }
    let has_units = UNIT_FOLDERS.iter().any(|folder| path.starts_with(folder));
    if has_units && path.split('/').any(is_own_unit) {
        return Some(AGENT);
    }
    // a home folder may be anywhere
    path.split('/').any(|name| name == ".ssh").then_some(ACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        let mut policy = Policy::default();
        for prefix in allow {
            policy.allow(prefix).expect("a folder that can be allowed");
        }
        policy
    }

    fn allows(policy: &Policy, path: &str) -> bool {
        policy.check(&path.parse().expect("a path")).is_ok()
    }

    #[test]
    fn without_a_word_three_folders_are_allowed() {
        let default = Policy::default();
        for path in [
            "/etc/containers/systemd/web.container",
            "/etc/flotta/workloads/web/conf/a",
            "/etc/systemd/system/job.timer",
            "/etc/systemd/system/flotta-timer.timer",
            "/etc/systemd/system/flotta-timer.service.d/10.conf",
            "/etc/containers/systemd/agent.container",
            "/etc/systemd/system/web.service.d/flotta.conf",
            "/etc/flotta/workloads/web/flotta-agent.service/.ssh/authorized_keys",
        ] {
            assert!(allows(&default, path), "{path}");
        }
        for path in [
            "/etc/myapp/conf",
            "/etc/hosts",
            "/opt/app/a",
            "/etc/flotta/policy.toml",
            "/etc/systemd/system/flotta-agent.service",
            "/etc/systemd/system/flotta-agent.service.d/10.conf",
            "/etc/systemd/system/flotta-.service.d/10.conf",
            "/etc/systemd/system/flotta-agent.timer",
            "/etc/containers/systemd/flotta-agent.container",
            "/etc/containers/systemd/web/flotta-agent.kube",
            "/etc/containers/systemd/FLOTTA-agent.container.d/10.conf",
        ] {
            assert!(!allows(&default, path), "{path}");
        }
    }

    #[test]
    fn a_policy_allows_folders_and_nothing_next_to_them() {
        let more = policy(&["/etc/myapp/", "/var/lib/app/data/"]);
        for path in ["/etc/myapp/a", "/etc/myapp/a/b", "/var/lib/app/data/x"] {
            assert!(allows(&more, path), "{path}");
        }
        for path in ["/etc/myapp2/a", "/ETC/myapp/a", "/var/lib/app/x", "/etc/a"] {
            assert!(!allows(&more, path), "{path}");
        }
        let forbidden = more.check(&"/opt/a/b".parse().expect("a path"));
        let text = forbidden.expect_err("forbidden").to_string();
        assert!(text.contains("/opt/a/b") && text.contains("allows no folder"));
    }

    #[test]
    fn what_no_policy_can_allow_is_never_allowed() {
        for (prefix, why) in NEVER {
            let folder = format!("{prefix}x/");
            for folder in [folder.as_str(), &folder.to_ascii_uppercase()] {
                let refused = Policy::default().allow(folder).expect_err(folder);
                assert!(refused.to_string().contains(why), "{refused}");
            }
            // the folder above it may be allowed, which does not allow the file
            let (above, _) = prefix.trim_end_matches('/').rsplit_once('/').expect("one");
            let above = format!("{above}/");
            let mut policy = Policy::default();
            if policy.allow(&above).is_ok() {
                assert!(never(prefix).is_some(), "{prefix}");
                assert!(never(&above).is_none(), "{above}");
            }
        }
        for path in [
            "/etc/passwd-",
            "/etc/group.old",
            "/etc/pam.d/login",
            "/etc/ld.so.preload",
            "/etc/sudoers.d/me",
            "/var/lib/flotta-agent/identity/key.pem",
            "/var/lib/flotta/store.db",
            "/Etc/Shadow",
            "/etc/systemd/system.control/flotta-agent.service.d/10.conf",
            "/var/lib/app/.ssh/authorized_keys",
        ] {
            assert!(never(path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_folder_that_is_none_cannot_be_allowed() {
        for prefix in [
            "",
            "/",
            "/etc/",
            "/opt/",
            "etc/app/",
            "/etc/app",
            "/etc//app/",
            "/etc/../app/",
            "/etc/a b/",
            "/etc/./app/",
            "/etc/é/",
        ] {
            assert!(Policy::default().allow(prefix).is_err(), "{prefix:?}");
        }
    }
}
