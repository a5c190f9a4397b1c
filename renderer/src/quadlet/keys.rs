//! The kinds of files that Quadlet 5.4 knows, and the keys of their sections (podman-systemd.unit(5)). Quadlet skips a file that
//! has any other key in its own section.

/// The oldest supported version of Quadlet, which files are checked against.
pub const VERSION: &str = "5.4";

/// A kind of Quadlet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `.container`.
    Container,
    /// `.pod`.
    Pod,
    /// `.volume`.
    Volume,
    /// `.network`.
    Network,
    /// `.kube`.
    Kube,
    /// `.image`.
    Image,
    /// `.build`.
    Build,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Container,
        Self::Pod,
        Self::Volume,
        Self::Network,
        Self::Kube,
        Self::Image,
        Self::Build,
    ];

    /// Returns the kind of a file, by its extension.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        Self::ALL
            .into_iter()
            .find(|kind| kind.extension() == extension)
    }

    /// Returns the extension, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Kube => "kube",
            Self::Image => "image",
            Self::Build => "build",
        }
    }

    /// Returns the name of its own section.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Container => "Container",
            Self::Pod => "Pod",
            Self::Volume => "Volume",
            Self::Network => "Network",
            Self::Kube => "Kube",
            Self::Image => "Image",
            Self::Build => "Build",
        }
    }

    /// Returns what Quadlet appends to the name of the unit that it makes.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Container | Self::Kube => "",
            Self::Pod => "-pod",
            Self::Volume => "-volume",
            Self::Network => "-network",
            Self::Image => "-image",
            Self::Build => "-build",
        }
    }

    /// Returns the keys of its own section.
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Container => CONTAINER,
            Self::Pod => POD,
            Self::Volume => VOLUME,
            Self::Network => NETWORK,
            Self::Kube => KUBE,
            Self::Image => IMAGE,
            Self::Build => BUILD,
        }
    }

    /// Returns keys that only a later Quadlet knows, and what to write until every device has it.
    pub const fn newer(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Container => NEWER_CONTAINER,
            Self::Pod => NEWER_POD,
            Self::Image | Self::Build => NEWER_PULL,
            Self::Network => NEWER_NETWORK,
            Self::Volume | Self::Kube => &[],
        }
    }
}

/// The keys of `[Quadlet]`, in every kind.
pub const QUADLET: &[&str] = &["DefaultDependencies"];

/// The keys of `[Install]` that Quadlet acts on.
pub const INSTALL: &[&str] = &["Alias", "WantedBy", "RequiredBy", "DefaultInstance"];

const CONTAINER: &[&str] = &[
    "AddCapability",
    "AddDevice",
    "AddHost",
    "Annotation",
    "AutoUpdate",
    "CgroupsMode",
    "ContainerName",
    "ContainersConfModule",
    "DNS",
    "DNSOption",
    "DNSSearch",
    "DropCapability",
    "Entrypoint",
    "Environment",
    "EnvironmentFile",
    "EnvironmentHost",
    "Exec",
    "ExposeHostPort",
    "GIDMap",
    "GlobalArgs",
    "Group",
    "GroupAdd",
    "HealthCmd",
    "HealthInterval",
    "HealthLogDestination",
    "HealthMaxLogCount",
    "HealthMaxLogSize",
    "HealthOnFailure",
    "HealthRetries",
    "HealthStartPeriod",
    "HealthStartupCmd",
    "HealthStartupInterval",
    "HealthStartupRetries",
    "HealthStartupSuccess",
    "HealthStartupTimeout",
    "HealthTimeout",
    "HostName",
    "IP",
    "IP6",
    "Image",
    "Label",
    "LogDriver",
    "LogOpt",
    "Mask",
    "Mount",
    "Network",
    "NetworkAlias",
    "NoNewPrivileges",
    "Notify",
    "PidsLimit",
    "Pod",
    "PodmanArgs",
    "PublishPort",
    "Pull",
    "ReadOnly",
    "ReadOnlyTmpfs",
    "RemapGid",
    "RemapUid",
    "RemapUidSize",
    "RemapUsers",
    "Rootfs",
    "RunInit",
    "SeccompProfile",
    "Secret",
    "SecurityLabelDisable",
    "SecurityLabelFileType",
    "SecurityLabelLevel",
    "SecurityLabelNested",
    "SecurityLabelType",
    "ServiceName",
    "ShmSize",
    "StartWithPod",
    "StopSignal",
    "StopTimeout",
    "SubGIDMap",
    "SubUIDMap",
    "Sysctl",
    "Timezone",
    "Tmpfs",
    "UIDMap",
    "Ulimit",
    "Unmask",
    "User",
    "UserNS",
    "VolatileTmp",
    "Volume",
    "WorkingDir",
];

const POD: &[&str] = &[
    "AddHost",
    "ContainersConfModule",
    "DNS",
    "DNSOption",
    "DNSSearch",
    "GIDMap",
    "GlobalArgs",
    "IP",
    "IP6",
    "Network",
    "NetworkAlias",
    "PodName",
    "PodmanArgs",
    "PublishPort",
    "RemapGid",
    "RemapUid",
    "RemapUidSize",
    "RemapUsers",
    "ServiceName",
    "ShmSize",
    "SubGIDMap",
    "SubUIDMap",
    "UIDMap",
    "UserNS",
    "Volume",
];

const VOLUME: &[&str] = &[
    "ContainersConfModule",
    "Copy",
    "Device",
    "Driver",
    "GlobalArgs",
    "Group",
    "Image",
    "Label",
    "Options",
    "PodmanArgs",
    "ServiceName",
    "Type",
    "User",
    "VolumeName",
];

const NETWORK: &[&str] = &[
    "ContainersConfModule",
    "DNS",
    "DisableDNS",
    "Driver",
    "Gateway",
    "GlobalArgs",
    "IPAMDriver",
    "IPRange",
    "IPv6",
    "Internal",
    "Label",
    "NetworkName",
    "Options",
    "PodmanArgs",
    "ServiceName",
    "Subnet",
];

const KUBE: &[&str] = &[
    "AutoUpdate",
    "ConfigMap",
    "ContainersConfModule",
    "ExitCodePropagation",
    "GlobalArgs",
    "KubeDownForce",
    "LogDriver",
    "LogOpt",
    "Network",
    "PodmanArgs",
    "PublishPort",
    "RemapGid",
    "RemapUid",
    "RemapUidSize",
    "RemapUsers",
    "ServiceName",
    "SetWorkingDirectory",
    "UserNS",
    "Yaml",
];

const IMAGE: &[&str] = &[
    "AllTags",
    "Arch",
    "AuthFile",
    "CertDir",
    "ContainersConfModule",
    "Creds",
    "DecryptionKey",
    "GlobalArgs",
    "Image",
    "ImageTag",
    "OS",
    "PodmanArgs",
    "ServiceName",
    "TLSVerify",
    "Variant",
];

const BUILD: &[&str] = &[
    "Annotation",
    "Arch",
    "AuthFile",
    "ContainersConfModule",
    "DNS",
    "DNSOption",
    "DNSSearch",
    "Environment",
    "File",
    "ForceRM",
    "GlobalArgs",
    "GroupAdd",
    "ImageTag",
    "Label",
    "Network",
    "PodmanArgs",
    "Pull",
    "Secret",
    "ServiceName",
    "SetWorkingDirectory",
    "TLSVerify",
    "Target",
    "Variant",
    "Volume",
];

const NEWER_CONTAINER: &[(&str, &str)] = &[
    ("Memory", "PodmanArgs=--memory=…"),
    ("ReloadCmd", "ExecReload= in [Service]"),
    ("ReloadSignal", "ExecReload= in [Service]"),
    ("Retry", "PodmanArgs=--retry=…"),
    ("RetryDelay", "PodmanArgs=--retry-delay=…"),
    ("HttpProxy", "PodmanArgs=--http-proxy=…"),
    ("AppArmor", "PodmanArgs=--security-opt=apparmor=…"),
];
const NEWER_POD: &[(&str, &str)] = &[
    ("HostName", "PodmanArgs=--hostname=…"),
    ("Label", "PodmanArgs=--label=…"),
    ("ExitPolicy", "PodmanArgs=--exit-policy=…"),
    ("StopTimeout", "ExecStop= in [Service]"),
];
const NEWER_NETWORK: &[(&str, &str)] = &[
    ("InterfaceName", "PodmanArgs=--interface-name=…"),
    ("NetworkDeleteOnStop", "ExecStop= in [Service]"),
];
const NEWER_PULL: &[(&str, &str)] = &[
    ("Retry", "PodmanArgs=--retry=…"),
    ("RetryDelay", "PodmanArgs=--retry-delay=…"),
    ("Policy", "PodmanArgs=--policy=…"),
    ("BuildArg", "PodmanArgs=--build-arg=…"),
    ("IgnoreFile", "PodmanArgs=--ignorefile=…"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_disjoint() {
        for kind in Kind::ALL {
            assert!(kind.keys().is_sorted(), "{kind:?}");
            for (newer, _) in kind.newer() {
                assert!(!kind.keys().contains(newer), "{kind:?} {newer}");
            }
            assert_eq!(
                Kind::of(&format!("a.b.{}", kind.extension())),
                Some(kind),
                "{kind:?}"
            );
        }
    }
}
