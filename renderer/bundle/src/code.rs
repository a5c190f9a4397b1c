//! Every stable error code of the project in one table. A code never changes its meaning and is never used again.
//!
//! `docs/errors.md` is generated from [`ALL`].

use serde::{Deserialize, Serialize};

/// A stable error code: what a person searches for, a test asserts and a dashboard groups by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    /// `FLT` and four digits, of which the first two are the [`Class`].
    pub id: &'static str,
    /// What happened, in general.
    pub title: &'static str,
    /// What to do about it.
    pub help: &'static str,
}

/// The class of a code: what kind of event it reports. The first two digits say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `FLT01`: an error in what people commit.
    Input,
    /// `FLT02`: a warning about what people commit.
    Warning,
    /// `FLT03`: a device refuses what it is offered.
    Refusal,
    /// `FLT04`: joining, and the edge API.
    Edge,
    /// `FLT05`: applying on a device.
    Device,
    /// `FLT06`: the server's own work.
    Server,
}

impl Class {
    /// Returns the class of a code; `None` for anything that is not a code, and for a class that only a newer program knows.
    pub fn of(id: &str) -> Option<Self> {
        match id.strip_prefix("FLT")?.get(..2)? {
            "01" => Some(Self::Input),
            "02" => Some(Self::Warning),
            "03" => Some(Self::Refusal),
            "04" => Some(Self::Edge),
            "05" => Some(Self::Device),
            "06" => Some(Self::Server),
            _ => None,
        }
    }
}

macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $help:literal;)*) => {
        $(#[doc = concat!("`", $id, "`: ", $title, ".")]
        pub const $name: Code = Code { id: $id, title: $title, help: $help };)*

        /// All codes, in order.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    NOT_YAML = "FLT0101", "not valid YAML", "fix the syntax at the place shown";
    SCHEMA = "FLT0102", "a value that the schema does not allow", "use a value of the type and range that the message names";
    UNKNOWN_FIELD = "FLT0103", "unknown field", "remove it, or spell it as suggested";
    MISSING_REFERENCE = "FLT0104", "an object or key that is referred to does not exist", "commit the object, fix the name, or mark the reference optional";
    DUPLICATE = "FLT0105", "two objects with one kind, namespace and name", "rename or remove one of them";
    BAD_NAME = "FLT0106", "not a valid name", "use lower-case letters, digits and `-`";
    UNSUPPORTED_KIND = "FLT0107", "an apiVersion or kind that Flotta does not know", "move it out of the fleet's folder, or fix apiVersion and kind";
    UNSUPPORTED_FIELD = "FLT0108", "a field that is not supported on devices", "remove it; the message says what to use instead";
    CONFLICT = "FLT0109", "two workloads of one device claim the same port, unit, path or volume", "change one of them";
    TEMPLATE = "FLT0110", "a template that cannot be expanded", "define the name, or fix the template";
    LIMIT = "FLT0111", "larger than a limit allows", "split it, or make it smaller";
    UNREADABLE = "FLT0112", "a file or revision that cannot be read", "check path, revision and access";
    DIGEST_REQUIRED = "FLT0113", "an image without a digest where digests are required", "write the reference as NAME@sha256:…";
    PLACEMENT = "FLT0114", "a workload that does not say where it runs, or says it twice", "give `device` or `deviceSelector`, not both";
    UNIT_FILE = "FLT0115", "a unit file that Quadlet or systemd would reject, or read only in part", "see podman-systemd.unit(5) and systemd.syntax(7)";
    ENCRYPTED = "FLT0116", "an object that is encrypted and cannot be read", "commit it in the clear, or keep it outside the fleet's folder; nothing is decrypted before it reaches a device";
    NEVER_ALLOWED = "FLT0117", "a file in a place where no device allows a release to have files", "use another name or folder; no policy of a device allows this one";

    NOT_ACTED_ON = "FLT0201", "a field that is accepted but not acted on yet", "it has no effect in this version; remove it if you rely on it";
    MATCHES_NOTHING = "FLT0202", "a selector or name that matches no device", "check the labels, or wait for the device to join";
    MISSING_SET = "FLT0203", "a device that names a missing set", "commit the set, or fix the label `flotta/member-of`";
    NO_DIGEST = "FLT0207", "an image without a digest may differ between devices", "write the reference as NAME@sha256:…";
    IGNORED_FILE = "FLT0208", "a file or object that is not part of the fleet", "nothing, if that is what you want";
    NO_MEANING = "FLT0209", "a field that has no effect on a device", "nothing, if you do not rely on it; the message says why";
    SHORT_IMAGE = "FLT0210", "an image without a registry", "write the reference with its registry";
    EMPTY = "FLT0211", "a source without any Flotta object", "check the folder and the revision; objects are read from files that end in .yaml or .yml";

    ENVELOPE = "FLT0301", "a signed document that cannot be read", "the server, or something between it and the device, altered it: check the server";
    SIGNATURE = "FLT0302", "too few valid signatures by the keys in force", "sign with the fleet's release keys; if keys were rotated, publish the new trust root";
    ROOT_CHAIN = "FLT0303", "a trust root that does not follow the one in force", "publish every version in order, each signed by the one before";
    WRONG_FLEET = "FLT0304", "a document of another fleet", "check which server the device was joined to";
    PROOF = "FLT0305", "the leaf is not in the release's tree", "the server sent a wrong proof: check the server and its depot";
    WRONG_DEVICE = "FLT0306", "the leaf of another device", "check the server";
    OLDER = "FLT0307", "a release older than one already accepted", "nothing: a server that was restored from a backup asks the device for the release that it accepted, and gives its next release a higher sequence. To go back on purpose, commit a revert: a new release with old content";
    EQUIVOCATION = "FLT0308", "another release with a sequence that was already accepted", "two different releases were signed with the same sequence: a server that was restored from a backup does this, and gives its next release a higher sequence by itself; otherwise find out who holds the release key";
    NOT_IN_LEAF = "FLT0309", "a manifest that the leaf does not name", "check the server";
    DIGEST_MISMATCH = "FLT0310", "content that does not have the requested digest", "check the server's depot, and whatever is between the server and the device";
    MANIFEST = "FLT0311", "a manifest that breaks a rule or limit", "render the fleet with the current version of flotta";
    TRUST_EXPIRED = "FLT0312", "the release in force has expired", "publish a new release; what runs keeps running";
    NOT_FLOTTA = "FLT0313", "a response that is not from a Flotta server", "find out what answers instead: a captive portal, a proxy, another server";
    UNTRUSTED_SERVER = "FLT0314", "a server whose certificate is not valid", "check the server's certificate, whatever is between the server and the device, and the device's clock";
    TOO_SLOW = "FLT0315", "a response that takes too long", "check the network and the server; the device keeps trying";
    PATH_FORBIDDEN = "FLT0316", "a manifest with a path that the device's policy forbids", "change it in Git; or, where a policy can allow it, allow its folder on the device: allow = [\"/FOLDER/FOLDER/\"] in /etc/flotta/policy.toml. The device keeps what it has";

    NO_CERTIFICATE = "FLT0401", "no client certificate", "join the device first: flotta-agent enrol JOINFILE";
    BAD_CERTIFICATE = "FLT0402", "a client certificate that does not identify a device of this fleet", "join the device again";
    REVOKED = "FLT0403", "the device's identity was revoked", "join the device again with a new token";
    NOT_YOURS = "FLT0404", "content that is not part of this device's bundle", "request only what the manifest names";
    TOKEN_UNKNOWN = "FLT0405", "a token that this server did not make", "make one: flotta token create";
    TOKEN_USED = "FLT0406", "a token that was already used", "make a new one: flotta token create";
    TOKEN_EXPIRED = "FLT0407", "a token that has expired", "make a new one: flotta token create --ttl 24h";
    TOKEN_OTHER_DEVICE = "FLT0408", "a token made for another device", "use the join file made for this device";
    NAME_TAKEN = "FLT0409", "a device of this name has already joined with another key", "if the machine was replaced: flotta approve --replace NAME";
    DENIED = "FLT0410", "the request to join was denied", "ask whoever runs the fleet";
    CSR = "FLT0411", "a request to join without a valid proof of possession", "make new keys: flotta-agent enrol --reset JOINFILE";
    TOO_LARGE = "FLT0412", "a request larger than allowed", "";
    TOO_MANY = "FLT0413", "too many requests", "wait as long as Retry-After says";
    BAD_REQUEST = "FLT0414", "a request that cannot be read", "use a flotta-agent of a version near the server's";
    NOT_FOUND = "FLT0415", "not found", "check the name: flotta get devices";
    NO_RELEASE = "FLT0416", "there is no release for this device yet", "commit an EdgeDevice of this name, or wait for the first release";
    KEY_TAKEN = "FLT0417", "a key that another device has joined with", "the machines were cloned; make new keys on one of them: flotta-agent enrol --reset JOINFILE";
    AMBIGUOUS = "FLT0418", "more than one request to join matches", "name the key as well, as the device shows it: flotta approve NAME --key SHA256:…";
    JOIN_FILE = "FLT0419", "a join file that cannot be used", "make a new one: flotta token create NAME > NAME.join";
    AGENT_TOO_OLD = "FLT0420", "the device's next manifest needs a newer agent", "update flotta-agent on the device; until then it keeps what it has";
    TOKEN_REVOKED = "FLT0421", "a token that was revoked", "make a new one: flotta token create";
    CLONED = "FLT0422", "two machines use the identity of one device", "find the two by their addresses and boots; on the one that should be another device: flotta-agent enrol --reset JOINFILE";
    UNKNOWN_DEVICE = "FLT0423", "a device with a certificate of this fleet that the server does not know", "the server's data is from before the device joined; the device asks to join again by itself. On the server: flotta get requests";

    IMAGE_PULL = "FLT0501", "an image cannot be pulled", "check the reference and the registry; the agent keeps trying";
    UNIT_FAILED = "FLT0502", "a unit does not stay up", "see its journal: journalctl -u UNIT";
    PORT_TAKEN = "FLT0503", "a port is already in use on the device", "free the port, or publish another one";
    UNIT_TAKEN = "FLT0504", "a unit of this name belongs to the host", "rename the workload";
    FILE_FAILED = "FLT0505", "a file cannot be written or removed", "see the message: space, permissions, read-only file system";
    BACKEND = "FLT0506", "systemd or Podman does not answer as expected", "see: systemctl status podman.socket dbus.socket, and journalctl -u podman";
    LEDGER = "FLT0507", "the agent's ledger cannot be read or written", "check the disk under the agent's state directory";
    UNREACHABLE = "FLT0508", "the server cannot be reached", "check network, name and time; the device continues with what it has";
    GENERATOR = "FLT0509", "Quadlet did not make a unit from a file", "see: /usr/lib/systemd/system-generators/podman-system-generator --dryrun";
    BUSY = "FLT0510", "a state directory in use by another flotta-agent", "stop it first: systemctl stop flotta-agent";
    IDENTITY = "FLT0511", "the device's keys or certificate cannot be read or written", "check the disk; to start over: flotta-agent enrol --reset JOINFILE";
    PROXY = "FLT0512", "the proxy does not let the device through", "check HTTPS_PROXY and NO_PROXY of flotta-agent.service, and the proxy's own rules";
    IMAGE_SPACE = "FLT0513", "an image does not fit on the device's disk", "make space where Podman keeps images, or use a smaller image; the agent keeps trying";
    DRIFTED = "FLT0514", "a file of the fleet was changed on the device", "nothing: the agent puts it back and restarts what uses it; to change it for good, change it in Git";
    UNIT_MASKED = "FLT0515", "a unit was masked on the device", "the agent does not unmask it; to have it run again: systemctl unmask UNIT";
    READ_ONLY = "FLT0516", "a folder that the agent writes to is mounted read-only", "see what mounted it: findmnt -T FOLDER; the agent continues by itself once the folder can be written";
    STORAGE = "FLT0517", "Podman cannot use its storage on the device", "see the message; the agent repairs what it can by itself. If it cannot, free space where Podman keeps images, or reboot";
    STATE_LOST = "FLT0518", "a file of the agent's state was lost or damaged", "the message says what happened to it; check the disk under the agent's state directory";
    TRUST_LOST = "FLT0519", "the device no longer knows whom to trust", "make a join file on the server (flotta token create NAME > NAME.join) and join again with the same keys: flotta-agent enrol NAME.join; what runs keeps running";
    TIME_AHEAD = "FLT0521", "a time that is ahead of the device's clock, which the network sets", "check the clock of the server, or of whoever signs releases; the device trusts its own clock";
    CLOCK_UNSURE = "FLT0522", "a time that does not fit the device's clock, which nothing sets", "let the network set the clock (timedatectl set-ntp true), or set it by hand; the device keeps working meanwhile";
    POLICY = "FLT0523", "the device's policy cannot be read", "fix the file at the place that the message names; until then a release may use only the default folders";
    NOT_READY = "FLT0531", "a workload that runs and is not ready", "see what its readiness check requests, and the workload's own log; nothing is stopped, and the check is repeated";
    UNHEALTHY = "FLT0532", "a container was stopped because a check of it failed", "see what the check requests, and the workload's own log; systemd starts it again as restartPolicy says";

    SOURCE = "FLT0601", "the source cannot be fetched or read", "check URL, branch and credentials; the last good release stays in force";
    STORE = "FLT0602", "the server's store cannot be read or written", "check the disk under --data";
    DEPOT = "FLT0603", "the depot cannot be read or written", "check the disk or bucket the depot is on";
    REFUSED_COMMIT = "FLT0604", "a commit with errors was refused", "fix it and commit again; the last good release stays in force";
    KEYS = "FLT0605", "keys or certificates of the fleet cannot be read", "restore the data directory from its backup: flotta restore BACKUP --data DIR";
    LISTEN = "FLT0606", "an address or socket that the server cannot use", "see the message: another program uses it, this machine does not have it, or it is not allowed";
    HELD = "FLT0607", "a commit that removes more than the fleet's limits allow", "see what it removes: flotta describe release COMMIT; let it through: flotta release allow COMMIT; or add again what should stay";
    NOT_HELD = "FLT0608", "a commit that is not held", "see which one is held: flotta get releases";
    STILL_IN_GIT = "FLT0609", "a device that is still in Git", "remove its EdgeDevice from Git first";
    SERVER_CLOCK = "FLT0611", "the server's clock is wrong, or was wrong when it signed a release", "set the clock (timedatectl); if it is right: flotta clock accept. Until then nothing is signed, and the release in force is still served";
    DEVICES_AWAY = "FLT0621", "most devices are offline", "check the server's network: its address, port and name as devices see them; which devices: flotta get devices";
    SERVER_DISK = "FLT0622", "the disk under the server's data is nearly full", "make space on it: when it is full, the server accepts no report, and no device can join";
    SERVER_WORK = "FLT0623", "a recurring task of the server fails", "see the message, and the server's log from the time it names";
    BACKUP = "FLT0631", "a backup that cannot be made or read", "see the message; no data directory was changed";
    NOT_EMPTY = "FLT0632", "a data directory that is not empty", "nothing is restored over it: move it away, or restore to another one with --data DIR";
    REVOKED_SINCE = "FLT0633", "it is not known which devices were revoked since the backup", "name them, so that none of them is served again: --revoked NAME,NAME or --none-revoked";
    UNFINISHED = "FLT0634", "a restore that did not finish", "run flotta restore again, with the same --data";
    NESTED_KEYS = "FLT0635", "a folder of keys inside the fleet's keys", "keys were copied to where a server had made its own: move the data directory away, and restore that folder to a new one: flotta restore FOLDER --data DIR";
}

/// An error with its code and its details, as the programs send it to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code, as in `docs/errors.md`.
    pub code: String,
    /// What it is about: a unit, an image, a file. Empty when that is the whole device, or not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What happened. Two problems with the same code, subject and message are one, whatever their details.
    pub message: String,
    /// More about it, as another program reports it. It may differ each time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// Longest message of a problem or event, in characters: it may quote what was refused, which can be of any length.
pub const MAX_MESSAGE: usize = 1024;

impl Problem {
    /// Creates a problem with this code; the message is cut at 1,024 characters.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        cut(&mut message, MAX_MESSAGE);
        Self {
            code: code.id.to_owned(),
            subject: String::new(),
            message,
            detail: String::new(),
            help: code.help.to_owned(),
        }
    }

    /// Returns the class of its code; `None` for a class that only a newer program knows.
    pub fn class(&self) -> Option<Class> {
        Class::of(&self.code)
    }

    /// Whether it has this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code.id
    }

    /// Sets the subject.
    #[must_use]
    pub fn about(self, subject: impl Into<String>) -> Self {
        let mut subject = subject.into();
        cut(&mut subject, MAX_MESSAGE);
        Self { subject, ..self }
    }

    /// Adds what another program says about it.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        let left = MAX_MESSAGE.saturating_sub(self.message.chars().count());
        cut(&mut detail, left);
        Self { detail, ..self }
    }

    /// Returns message and detail, for people.
    pub fn text(&self) -> String {
        if self.detail.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.message, self.detail)
        }
    }

    /// Replaces the general help by one that names the unit or folder.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        let mut help = help.into();
        cut(&mut help, MAX_MESSAGE);
        Self { help, ..self }
    }
}

/// Cuts a text that is longer than `max` characters, and marks the cut with `…`.
pub fn cut(text: &mut String, max: usize) {
    if let Some((end, _)) = text.char_indices().nth(max) {
        text.truncate(end);
        text.push('…');
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
    }

    #[test]
    fn every_code_has_a_class() {
        assert!(ALL.iter().all(|code| Class::of(code.id).is_some()));
        assert_eq!(Class::of(OLDER.id), Some(Class::Refusal));
        for unknown in ["FLT9901", "FLT0", "XYZ0301", ""] {
            assert_eq!(Class::of(unknown), None, "{unknown}");
        }
    }
}
