//! What a container may do: users, capabilities, privileges.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext,
};

use super::asked::{Asked, SPEC};
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::Security;

pub(super) const FIELDS: &[Field] = &[
    Field::supported("securityContext.runAsUser", "`User=`"),
    Field::supported(
        "securityContext.runAsGroup",
        "`Group=`; without a user, `User=0` as well",
    ),
    Field::supported(
        "securityContext.runAsNonRoot",
        "an error where the user is root, or not known",
    ),
    Field::supported(
        "securityContext.supplementalGroups",
        "`PodmanArgs=--group-add`",
    ),
    Field::supported(
        "securityContext.supplementalGroupsPolicy",
        "`Merge`, or an error",
    ),
    Field::supported(
        "securityContext.fsGroup",
        "`PodmanArgs=--group-add`; an emptyDir and a claim that are new belong to the group, and what is made in them too; a claim with content is left as it is; the files of a ConfigMap stay root's, and a mode that keeps others from reading them is an error",
    ),
    Field::no_effect(
        "securityContext.fsGroupChangePolicy",
        "the owner of files that are there is never changed",
    ),
    Field::supported(
        "securityContext.seccompProfile",
        "`PodmanArgs=--security-opt=seccomp`",
    ),
    Field::supported(
        "securityContext.appArmorProfile",
        "`PodmanArgs=--security-opt=apparmor`",
    ),
    Field::supported(
        "securityContext.seLinuxOptions",
        "`PodmanArgs=--security-opt=label`",
    ),
    Field::no_effect(
        "securityContext.seLinuxChangePolicy",
        "Podman gives files their labels where a volume asks for it",
    ),
    Field::refused("securityContext.windowsOptions", "devices run Linux"),
    Field::supported("containers[].securityContext.runAsUser", "`User=`"),
    Field::supported(
        "containers[].securityContext.runAsGroup",
        "`Group=`; without a user, `User=0` as well",
    ),
    Field::supported(
        "containers[].securityContext.runAsNonRoot",
        "an error where the user is root, or not known",
    ),
    Field::supported(
        "containers[].securityContext.privileged",
        "`PodmanArgs=--privileged`",
    ),
    Field::supported(
        "containers[].securityContext.readOnlyRootFilesystem",
        "`ReadOnly=`",
    ),
    Field::supported(
        "containers[].securityContext.allowPrivilegeEscalation",
        "`NoNewPrivileges=`",
    ),
    Field::supported(
        "containers[].securityContext.capabilities",
        "`AddCapability=` and `DropCapability=`",
    ),
    Field::supported(
        "containers[].securityContext.procMount",
        "`PodmanArgs=--security-opt=unmask`",
    ),
    Field::supported(
        "containers[].securityContext.seccompProfile",
        "`PodmanArgs=--security-opt=seccomp`",
    ),
    Field::supported(
        "containers[].securityContext.appArmorProfile",
        "`PodmanArgs=--security-opt=apparmor`",
    ),
    Field::supported(
        "containers[].securityContext.seLinuxOptions",
        "`PodmanArgs=--security-opt=label`",
    ),
    Field::refused(
        "containers[].securityContext.windowsOptions",
        "devices run Linux",
    ),
];

/// Where profiles of seccomp lie: where Kubernetes and `podman kube play` look for them.
const SECCOMP_FOLDER: &str = "/var/lib/kubelet/seccomp";

/// All capabilities that Linux has, without `CAP_`.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The container's own words, and the pod's, each with where it stands.
struct Words<'a> {
    own: SecurityContext,
    pod: PodSecurityContext,
    asked: Asked<'a>,
}

impl Words<'_> {
    /// Where a field stands: the container's when it is there.
    fn at(&self, own: bool, field: &str) -> String {
        if own {
            self.asked.at(&format!("securityContext/{field}"))
        } else {
            format!("{SPEC}/securityContext/{field}")
        }
    }
}

/// The container's own words win over the pod's.
pub(super) fn security(job: &mut Job<'_>, asked: Asked<'_>) -> Security {
    let words = Words {
        own: asked.container.security_context.clone().unwrap_or_default(),
        pod: asked.spec.security_context.clone().unwrap_or_default(),
        asked,
    };
    let group = id(
        job,
        &words,
        words.own.run_as_group,
        words.pod.run_as_group,
        "runAsGroup",
    );
    let user = id(
        job,
        &words,
        words.own.run_as_user,
        words.pod.run_as_user,
        "runAsUser",
    );
    // as `podman kube play`: Podman knows no group without a user
    let user = user.or(group.map(|_| 0));
    non_root(job, &words, user);
    escalation(job, &words);
    let capabilities = words.own.capabilities.clone().unwrap_or_default();
    let Capabilities { add, drop } = capabilities;
    let pointer = words.at(true, "capabilities");
    Security {
        user,
        group,
        groups: groups(job, &words),
        privileged: words.own.privileged == Some(true),
        read_only: words.own.read_only_root_filesystem == Some(true),
        no_new_privileges: words.own.allow_privilege_escalation == Some(false),
        add_capabilities: names(job, add, &format!("{pointer}/add")),
        drop_capabilities: names(job, drop, &format!("{pointer}/drop")),
        options: options(job, &words),
    }
}

/// A user or group.
fn id(
    job: &mut Job<'_>,
    words: &Words<'_>,
    own: Option<i64>,
    pod: Option<i64>,
    field: &str,
) -> Option<u32> {
    let id = own.or(pod)?;
    number(job, id, &words.at(own.is_some(), field))
}

/// An id as Kubernetes takes one.
fn number(job: &mut Job<'_>, id: i64, pointer: &str) -> Option<u32> {
    let good = u32::try_from(id)
        .ok()
        .filter(|id| i32::try_from(*id).is_ok());
    if good.is_none() {
        let message = format!("{id} is no id: use a number from 0 to {}", i32::MAX);
        job.refuse(code::SCHEMA, pointer, message);
    }
    good
}

fn groups(job: &mut Job<'_>, words: &Words<'_>) -> Vec<u32> {
    let all = words.pod.supplemental_groups.iter().flatten().enumerate();
    let all = all.map(|(n, id)| (*id, format!("supplementalGroups/{n}")));
    let of_files = words.pod.fs_group.map(|id| (id, "fsGroup".to_owned()));
    let mut groups = Vec::new();
    for (id, field) in all.chain(of_files) {
        let id = number(job, id, &words.at(false, &field));
        groups.extend(id.filter(|id| !groups.contains(id)));
    }
    let policy = words.pod.supplemental_groups_policy.as_deref();
    if let Some(other) = policy.filter(|policy| *policy != "Merge") {
        let message = format!(
            "`{other}`: Podman gives the groups of the image's user too; only Merge is supported"
        );
        let pointer = words.at(false, "supplementalGroupsPolicy");
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
    }
    groups
}

/// Kubernetes looks at the image when it starts the container, and does not start one of root. A device cannot.
fn non_root(job: &mut Job<'_>, words: &Words<'_>, user: Option<u32>) {
    let asked = words.own.run_as_non_root.or(words.pod.run_as_non_root);
    if asked != Some(true) || user.is_some_and(|user| user != 0) {
        return;
    }
    let pointer = words.at(words.own.run_as_non_root.is_some(), "runAsNonRoot");
    if user.is_some() {
        let message = "the user is root (0): set runAsUser to another, or take runAsNonRoot away";
        job.refuse(code::SCHEMA, &pointer, message);
    } else {
        let message =
            "a device does not look at the image's user before it starts it: set runAsUser";
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
    }
}

/// What Kubernetes does not take together.
fn escalation(job: &mut Job<'_>, words: &Words<'_>) {
    if words.own.allow_privilege_escalation != Some(false) {
        return;
    }
    let added = words.own.capabilities.iter();
    let mut added = added.flat_map(|capabilities| capabilities.add.iter().flatten());
    let what = if words.own.privileged == Some(true) {
        "privileged"
    } else if added.any(|name| bare(name) == "SYS_ADMIN") {
        "the capability SYS_ADMIN"
    } else {
        return;
    };
    let message = format!("`allowPrivilegeEscalation` cannot be false with {what}");
    let pointer = words.at(true, "allowPrivilegeEscalation");
    job.refuse(code::SCHEMA, &pointer, message);
}

/// As Linux has it, without `CAP_`.
fn bare(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

/// Those that are names of capabilities.
fn names(job: &mut Job<'_>, names: Option<Vec<String>>, pointer: &str) -> Vec<String> {
    let names = names.into_iter().flatten().enumerate();
    let good = names.filter(|(n, name)| {
        let good = CAPABILITIES.contains(&bare(name).as_str());
        if !good {
            let message = format!("{name:?} is not a capability");
            job.refuse(code::SCHEMA, &format!("{pointer}/{n}"), message);
        }
        good
    });
    good.map(|(_, name)| name).collect()
}

/// What follows `--security-opt=`.
fn options(job: &mut Job<'_>, words: &Words<'_>) -> Vec<String> {
    let mut options = Vec::new();
    let (own, pod) = (&words.own, &words.pod);
    let profile = own
        .seccomp_profile
        .as_ref()
        .or(pod.seccomp_profile.as_ref());
    let pointer = words.at(own.seccomp_profile.is_some(), "seccompProfile");
    let seccomp = profile.and_then(|profile| seccomp(job, profile, &pointer));
    // a privileged container has none, whatever it asks for: Podman sees to that
    let seccomp = seccomp.filter(|_| words.own.privileged != Some(true));
    options.extend(seccomp.map(|profile| format!("seccomp={profile}")));
    let profile = own
        .app_armor_profile
        .as_ref()
        .or(pod.app_armor_profile.as_ref());
    let pointer = words.at(own.app_armor_profile.is_some(), "appArmorProfile");
    let app_armor = profile.and_then(|profile| app_armor(job, profile, &pointer));
    options.extend(app_armor.map(|profile| format!("apparmor={profile}")));
    let labels = own
        .se_linux_options
        .as_ref()
        .or(pod.se_linux_options.as_ref());
    let pointer = words.at(own.se_linux_options.is_some(), "seLinuxOptions");
    if let Some(labels) = labels {
        options.extend(se_linux(job, labels, &pointer));
    }
    match own.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") => options.push("unmask=ALL".to_owned()),
        Some(other) => {
            let message = format!("`{other}`: use Default or Unmasked");
            job.refuse(code::SCHEMA, &words.at(true, "procMount"), message);
        }
    }
    options
}

/// Another profile than Podman's own.
fn seccomp(job: &mut Job<'_>, profile: &SeccompProfile, pointer: &str) -> Option<String> {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", None) => None,
        ("Unconfined", None) => Some("unconfined".to_owned()),
        ("Localhost", Some(path)) => {
            let inner = path.split('/').all(|part| !["", ".", ".."].contains(&part));
            let pointer = format!("{pointer}/localhostProfile");
            if inner && job.plain_word(path, &pointer) {
                return Some(format!("{SECCOMP_FOLDER}/{path}"));
            }
            if !inner {
                let message = format!("{path:?} must be a path below {SECCOMP_FOLDER}");
                job.refuse(code::SCHEMA, &pointer, message);
            }
            None
        }
        _ => wrong_profile(job, pointer),
    }
}

/// Another profile than the device's own.
fn app_armor(job: &mut Job<'_>, profile: &AppArmorProfile, pointer: &str) -> Option<String> {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", None) => None,
        ("Unconfined", None) => Some("unconfined".to_owned()),
        ("Localhost", Some(name)) => {
            let pointer = format!("{pointer}/localhostProfile");
            job.plain_word(name, &pointer).then(|| name.clone())
        }
        _ => wrong_profile(job, pointer),
    }
}

fn wrong_profile(job: &mut Job<'_>, pointer: &str) -> Option<String> {
    let message = "use type RuntimeDefault or Unconfined, or Localhost with a localhostProfile";
    job.refuse(code::SCHEMA, pointer, message);
    None
}

fn se_linux(job: &mut Job<'_>, labels: &SELinuxOptions, pointer: &str) -> Vec<String> {
    let parts = [
        ("user", &labels.user),
        ("role", &labels.role),
        ("type", &labels.type_),
        ("level", &labels.level),
    ];
    let given = parts.into_iter().filter_map(|(name, value)| {
        let value = value.as_deref().filter(|value| !value.is_empty())?;
        let plain = job.plain_word(value, &format!("{pointer}/{name}"));
        plain.then(|| format!("label={name}:{value}"))
    });
    given.collect()
}
