//! The security context: users, capabilities and privileges.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext,
};

use super::context::{ContainerContext, SPEC};
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
        "an error if the user is root or not known",
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
        "`PodmanArgs=--group-add`; a new emptyDir or claim and its new files belong to the group; a claim with content is not changed; the files of a ConfigMap belong to root, so a mode that denies others reading them is an error",
    ),
    Field::no_effect(
        "securityContext.fsGroupChangePolicy",
        "the owner of existing files is never changed",
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
        "Podman labels files only when a volume says so",
    ),
    Field::refused("securityContext.windowsOptions", "devices run Linux"),
    Field::supported("containers[].securityContext.runAsUser", "`User=`"),
    Field::supported(
        "containers[].securityContext.runAsGroup",
        "`Group=`; without a user, `User=0` as well",
    ),
    Field::supported(
        "containers[].securityContext.runAsNonRoot",
        "an error if the user is root or not known",
    ),
    Field::supported(
        "containers[].securityContext.privileged",
        "`PodmanArgs=--privileged`",
    ),
    Field::supported(
        "containers[].securityContext.readOnlyRootFilesystem",
        "`ReadOnly=`; Podman mounts memory at `/run`, `/tmp` and `/var/tmp` that can be written to, where no volume is mounted",
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

/// The folder of seccomp profiles, the same as in Kubernetes and `podman kube play`.
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

/// The security contexts of the container and of its pod.
struct Contexts<'a> {
    own: SecurityContext,
    pod: PodSecurityContext,
    context: ContainerContext<'a>,
}

impl Contexts<'_> {
    /// Returns the pointer to a field of the container's context, or of the pod's.
    fn at(&self, own: bool, field: &str) -> String {
        if own {
            self.context.at(&format!("securityContext/{field}"))
        } else {
            format!("{SPEC}/securityContext/{field}")
        }
    }
}

/// Returns the security settings. Fields of the container take precedence over those of the pod.
pub(super) fn security(job: &mut Job<'_>, context: ContainerContext<'_>) -> Security {
    let contexts = Contexts {
        own: context
            .container
            .security_context
            .clone()
            .unwrap_or_default(),
        pod: context.spec.security_context.clone().unwrap_or_default(),
        context,
    };
    let group = id(
        job,
        &contexts,
        contexts.own.run_as_group,
        contexts.pod.run_as_group,
        "runAsGroup",
    );
    let user = id(
        job,
        &contexts,
        contexts.own.run_as_user,
        contexts.pod.run_as_user,
        "runAsUser",
    );
    // As in `podman kube play`: in Podman there is no group without a user.
    let user = user.or(group.map(|_| 0));
    non_root(job, &contexts, user);
    escalation(job, &contexts);
    let capabilities = contexts.own.capabilities.clone().unwrap_or_default();
    let Capabilities { add, drop } = capabilities;
    let pointer = contexts.at(true, "capabilities");
    Security {
        user,
        group,
        groups: groups(job, &contexts),
        privileged: contexts.own.privileged == Some(true),
        read_only: contexts.own.read_only_root_filesystem == Some(true),
        no_new_privileges: contexts.own.allow_privilege_escalation == Some(false),
        add_capabilities: names(job, add, &format!("{pointer}/add")),
        drop_capabilities: names(job, drop, &format!("{pointer}/drop")),
        options: options(job, &contexts),
    }
}

/// Returns the id of a user or group.
fn id(
    job: &mut Job<'_>,
    contexts: &Contexts<'_>,
    own: Option<i64>,
    pod: Option<i64>,
    field: &str,
) -> Option<u32> {
    let id = own.or(pod)?;
    number(job, id, &contexts.at(own.is_some(), field))
}

/// Returns an id that is valid in Kubernetes, or reports an error.
fn number(job: &mut Job<'_>, id: i64, pointer: &str) -> Option<u32> {
    let good = u32::try_from(id)
        .ok()
        .filter(|id| i32::try_from(*id).is_ok());
    if good.is_none() {
        let message = format!(
            "{id} is not a user or group id: use a number from 0 to {}",
            i32::MAX
        );
        job.refuse(code::SCHEMA, pointer, message);
    }
    good
}

fn groups(job: &mut Job<'_>, contexts: &Contexts<'_>) -> Vec<u32> {
    let all = contexts
        .pod
        .supplemental_groups
        .iter()
        .flatten()
        .enumerate();
    let all = all.map(|(n, id)| (*id, format!("supplementalGroups/{n}")));
    let of_files = contexts.pod.fs_group.map(|id| (id, "fsGroup".to_owned()));
    let mut groups = Vec::new();
    for (id, field) in all.chain(of_files) {
        let id = number(job, id, &contexts.at(false, &field));
        groups.extend(id.filter(|id| !groups.contains(id)));
    }
    let policy = contexts.pod.supplemental_groups_policy.as_deref();
    if let Some(other) = policy.filter(|policy| *policy != "Merge") {
        let message = format!(
            "`{other}`: Podman always adds the groups of the image's user; only Merge is supported"
        );
        let pointer = contexts.at(false, "supplementalGroupsPolicy");
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
    }
    groups
}

/// Checks `runAsNonRoot`. Kubernetes reads the image's user when it starts the container, and does not start it as root. A device
/// cannot do that.
fn non_root(job: &mut Job<'_>, contexts: &Contexts<'_>, user: Option<u32>) {
    let required = contexts
        .own
        .run_as_non_root
        .or(contexts.pod.run_as_non_root);
    if required != Some(true) || user.is_some_and(|user| user != 0) {
        return;
    }
    let pointer = contexts.at(contexts.own.run_as_non_root.is_some(), "runAsNonRoot");
    if user.is_some() {
        let message = "the user is root (0): set runAsUser to another user, or remove runAsNonRoot";
        job.refuse(code::SCHEMA, &pointer, message);
    } else {
        let message =
            "a device does not know the image's user before it starts the container: set runAsUser";
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
    }
}

/// Reports fields that Kubernetes does not accept together.
fn escalation(job: &mut Job<'_>, contexts: &Contexts<'_>) {
    if contexts.own.allow_privilege_escalation != Some(false) {
        return;
    }
    let added = contexts.own.capabilities.iter();
    let mut added = added.flat_map(|capabilities| capabilities.add.iter().flatten());
    let what = if contexts.own.privileged == Some(true) {
        "privileged"
    } else if added.any(|name| bare(name) == "SYS_ADMIN") {
        "the capability SYS_ADMIN"
    } else {
        return;
    };
    let message = format!("`allowPrivilegeEscalation` cannot be false with {what}");
    let pointer = contexts.at(true, "allowPrivilegeEscalation");
    job.refuse(code::SCHEMA, &pointer, message);
}

/// Returns the name of a capability in upper case, without `CAP_`.
fn bare(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

/// Returns the names that are capabilities, and reports the others.
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

/// Returns the values for `--security-opt=`.
fn options(job: &mut Job<'_>, contexts: &Contexts<'_>) -> Vec<String> {
    let mut options = Vec::new();
    let (own, pod) = (&contexts.own, &contexts.pod);
    let profile = own
        .seccomp_profile
        .as_ref()
        .or(pod.seccomp_profile.as_ref());
    let pointer = contexts.at(own.seccomp_profile.is_some(), "seccompProfile");
    let seccomp = profile.and_then(|profile| seccomp(job, profile, &pointer));
    // A privileged container never has a seccomp profile in Podman.
    let seccomp = seccomp.filter(|_| contexts.own.privileged != Some(true));
    options.extend(seccomp.map(|profile| format!("seccomp={profile}")));
    let profile = own
        .app_armor_profile
        .as_ref()
        .or(pod.app_armor_profile.as_ref());
    let pointer = contexts.at(own.app_armor_profile.is_some(), "appArmorProfile");
    let app_armor = profile.and_then(|profile| app_armor(job, profile, &pointer));
    options.extend(app_armor.map(|profile| format!("apparmor={profile}")));
    let labels = own
        .se_linux_options
        .as_ref()
        .or(pod.se_linux_options.as_ref());
    let pointer = contexts.at(own.se_linux_options.is_some(), "seLinuxOptions");
    if let Some(labels) = labels {
        options.extend(se_linux(job, labels, &pointer));
    }
    match own.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") => options.push("unmask=ALL".to_owned()),
        Some(other) => {
            let message = format!("`{other}`: use Default or Unmasked");
            job.refuse(code::SCHEMA, &contexts.at(true, "procMount"), message);
        }
    }
    options
}

/// Returns a profile other than Podman's default.
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

/// Returns a profile other than the device's default.
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
