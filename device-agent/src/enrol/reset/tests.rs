use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use flotta_bundle::FleetName;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::verify::{Memory, verify_offer};
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Leaf};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SanType,
};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A fleet with its own keys and CA.
struct Fleet {
    name: FleetName,
    key: SigningKey,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
}

impl Fleet {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("an authority").pem();
        Self {
            name: name.parse().expect("a fleet"),
            key: SigningKey::generate().expect("a key").0,
            issuer: Issuer::new(params, key),
            ca,
        }
    }

    fn trust(&self) -> TrustRoot {
        TrustRoot {
            schema: root::SCHEMA,
            fleet: self.name.clone(),
            version: 1,
            root: Role::any_of([self.key.public()]),
            release: Role::any_of([self.key.public()]),
        }
    }

    fn join(&self, device: &str) -> Join {
        let root = Envelope::sign(root::PAYLOAD_TYPE, &self.trust().encode(), &[&self.key]);
        let file = json!({
            "schema": 1, "fleet": self.name, "server": "https://edge.example", "ca": self.ca,
            "trust_root": root, "device": device,
        });
        let bytes = serde_json::to_vec(&file).expect("JSON");
        Join::parse(&bytes, "a.join".as_ref(), None).expect("a join file")
    }

    fn certificate(&self, identity: &Identity, device: &DeviceName) -> String {
        let csr = identity.csr(device).expect("a request");
        let mut request = CertificateSigningRequestParams::from_pem(&csr).expect("a request");
        let name = device.identity(&self.name).try_into().expect("an URI");
        request.params.subject_alt_names = vec![SanType::URI(name)];
        let certificate = request.signed_by(&self.issuer).expect("a certificate");
        format!("{}{}", certificate.pem(), self.ca)
    }

    fn offer(&self, device: &DeviceName, sequence: u64) -> Offer {
        let manifest = Digest::of(b"manifest");
        let leaf = Leaf::following(device.clone(), manifest, None).encode();
        let tree = Tree::new([leaf.clone()]);
        let release = Release {
            schema: release::SCHEMA,
            fleet: self.name.clone(),
            sequence,
            revision: Revision {
                source: "directory".to_owned(),
                commit: "4f2c91a".to_owned(),
                subject: String::new(),
                inventory: None,
            },
            issued: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
            tree: tree.head(),
        };
        Offer {
            roots: Vec::new(),
            release: Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[&self.key]),
            leaf: String::from_utf8(leaf).expect("JSON"),
            index: 0,
            proof: tree.prove(0).expect("a proof"),
            manifest,
        }
    }
}

struct Bench {
    /// The temporary folder, removed on drop.
    _folder: Option<TempDir>,
    config: Config,
    fleet: Fleet,
}

const OLD: &str = "default/shop-17";

impl Bench {
    /// A device that has joined as [`OLD`], and has accepted release 3.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        Self::within(&path, Some(folder))
    }

    /// The same device at this path.
    fn within(path: &Path, folder: Option<TempDir>) -> Self {
        let config = Config {
            state: path.join("state"),
            ..Config::default()
        };
        config.make_state().expect("a folder");
        let fleet = Fleet::new("shops");
        let join = fleet.join(OLD);
        let (identity, _) = Identity::open_or_make(&config.identity()).expect("keys");
        let pem = fleet.certificate(&identity, &join.device);
        let mut ledger = Ledger::open(&config.state).expect("a ledger");
        let kept = join.keep(&identity, &mut ledger, join.device.clone(), &pem);
        kept.expect("joined");
        let offer = fleet.offer(&join.device, 3);
        let memory = ledger.memory().expect("joined").clone();
        let accepted = verify_offer(&offer, &join.device, &memory).expect("a good offer");
        ledger.accept(&offer, &accepted).expect("kept");
        let event = ledger.note(Timestamp::UNIX_EPOCH, "Failed", "web".to_owned(), true);
        event.expect("kept");
        Self {
            _folder: folder,
            config,
            fleet,
        }
    }

    /// The agent's state after a start.
    fn start(&self) -> (Ledger, Joined, Identity) {
        switch(&self.config).expect("in order");
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        let (ledger, joined) = crate::run::prepare(&self.config, &clock).expect("in order");
        let identity = Identity::open(&self.config.identity()).expect("keys");
        (ledger, joined.expect("joined"), identity)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.config.state).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.retain(|name| name.starts_with("identity"));
        names.sort();
        names
    }
}

/// A power cut.
fn cut() -> EnrolError {
    EnrolError::NotJoined
}

#[test]
fn a_new_identity_takes_over_whole_whenever_the_power_is_cut() {
    // the same fleet under another name, and another fleet
    for other in [false, true] {
        let mut steps = 0;
        loop {
            let bench = Bench::new();
            let stranger = Fleet::new("shops");
            let fleet = if other { &stranger } else { &bench.fleet };
            let join = fleet.join("default/shop-18");
            let log = bench.start().0.log_id().to_owned();
            let identity = prepare(&bench.config, &join, false).expect("keys");
            let pem = fleet.certificate(&identity, &join.device);
            complete(&bench.config, &join, &identity, join.device.clone(), &pem).expect("kept");
            let mut left = steps;
            let done = switch_by_steps(&bench.config, &mut || {
                left = usize::checked_sub(left, 1).ok_or_else(cut)?;
                Ok(())
            });

            let (ledger, joined, now) = bench.start();
            assert_eq!(joined.device, join.device, "step {steps}");
            assert_eq!(now.fingerprint(), identity.fingerprint());
            now.certificate().expect("a certificate for these keys");
            assert_eq!(now.ca().expect("an authority"), fleet.ca);
            let memory = ledger.memory().expect("trust");
            assert_eq!(memory.trust, fleet.trust());
            let highest = memory.highest.map(|highest| highest.sequence);
            assert_eq!(highest, (!other).then_some(3), "step {steps}");
            assert_eq!(ledger.accepted().is_some(), !other, "step {steps}");
            // events of this fleet are not sent to another one
            assert_eq!(ledger.unacknowledged().is_empty(), other, "step {steps}");
            assert_eq!(ledger.log_id() == log, !other, "step {steps}");
            assert_eq!(bench.names(), ["identity"]);
            assert!(!bench.config.identity().join(JOIN).exists());
            let again = bench.start();
            assert_eq!(again.1, joined, "and stays so");
            assert_eq!(again.0.memory(), ledger.memory());
            if done.is_ok() {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 6, "{steps} steps");
        println!("switch: the power was cut at {steps} of {steps} steps");
    }
}

#[test]
fn what_is_not_complete_takes_nothing_over() {
    let names = [
        "key.pem",
        "sealing.key",
        "join",
        "certificate.pem",
        "ca.pem",
    ];
    for there in 0..=names.len() {
        let bench = Bench::new();
        let (_, before, old) = bench.start();
        let join = bench.fleet.join("default/shop-18");
        let identity = prepare(&bench.config, &join, false).expect("keys");
        let pem = bench.fleet.certificate(&identity, &join.device);
        complete(&bench.config, &join, &identity, join.device.clone(), &pem).expect("kept");
        let next = bench.config.next();
        fs::remove_file(next.join("joined.json")).expect("removed");
        for name in &names[there..] {
            fs::remove_file(next.join(name)).expect("removed");
        }
        let (ledger, joined, now) = bench.start();
        assert_eq!(joined, before, "{there} files");
        assert_eq!(now.fingerprint(), old.fingerprint());
        assert_eq!(ledger.accepted().map(|accepted| accepted.release), Some(3));
        // once there is a join file, the agent keeps asking
        assert_eq!(
            waiting(&bench.config).is_some(),
            there >= 3,
            "{there} files"
        );
        assert_eq!(next.exists(), there >= 3, "{there} files");
        abandon(&bench.config).expect("removed");
        assert_eq!(bench.start().1, before);
        assert_eq!(bench.names(), ["identity"]);
    }
}

#[test]
fn a_copy_that_cannot_be_made_does_not_keep_the_agent_from_starting() {
    for name in ["joined.json", "ca.pem"] {
        let bench = Bench::new();
        let before = bench.start().1;
        let copy = bench.config.state.join("ledger").join(name);
        fs::remove_file(&copy).expect("removed");
        fs::create_dir(&copy).expect("made");
        let (ledger, joined, _) = bench.start();
        assert_eq!(joined, before, "{name}");
        assert_eq!(ledger.accepted().map(|accepted| accepted.release), Some(3));
    }
}

/// A small file system, unmounted on drop.
struct Small(TempDir);

impl Small {
    /// None where mounting is not permitted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
        let done = mount.arg(folder.path()).output();
        done.is_ok_and(|done| done.status.success())
            .then_some(Self(folder))
    }

    /// Fills it to the last byte. Removing the returned file frees the space.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut filler = File::create(&path).expect("a file");
        let full = loop {
            if let Err(error) = filler.write_all(&[0; 512]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let _ = umount.arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_the_agent_starts_with_what_there_is_and_copies_what_is_lost_later() {
    for lost in [
        "ledger/joined.json",
        "ledger/ca.pem",
        "identity/joined.json",
        "identity/ca.pem",
    ] {
        let Some(disk) = Small::mount() else {
            eprintln!("SKIPPED: no file system can be mounted here");
            return;
        };
        let bench = Bench::within(disk.0.path(), None);
        let (_, before, keys) = bench.start();
        let path = bench.config.state.join(lost);
        let content = fs::read(&path).expect("it is there");
        fs::remove_file(&path).expect("removed");
        let filler = disk.fill();
        let (ledger, joined, now) = bench.start();
        assert!(!path.exists(), "{lost}: the disk was not full");
        assert_eq!(joined, before, "{lost}");
        assert_eq!(now.fingerprint(), keys.fingerprint());
        assert_eq!(ledger.accepted().map(|accepted| accepted.release), Some(3));
        fs::remove_file(filler).expect("removed");
        let (ledger, joined, _) = bench.start();
        assert_eq!(joined, before);
        assert_eq!(fs::read(&path).expect("copied"), content, "{lost}");
        let said = format!("{lost} is gone");
        let mut events = ledger.unacknowledged().iter();
        assert!(events.any(|event| event.message.contains(&said)), "{lost}");
    }
}

#[test]
fn who_no_longer_knows_whom_to_trust_joins_again_with_the_same_keys() {
    let bench = Bench::new();
    let (_, before, old) = bench.start();
    for folder in ["identity", "ledger"] {
        let path = bench.config.state.join(folder).join("trust.json");
        fs::remove_file(path).expect("removed");
    }
    let (ledger, joined, _) = bench.start();
    assert!(ledger.trust_lost().is_some());
    assert_eq!(joined, before);
    let join = bench.fleet.join(OLD);
    let identity = prepare(&bench.config, &join, true).expect("keys");
    assert_eq!(identity.fingerprint(), old.fingerprint());
    let pem = bench.fleet.certificate(&identity, &join.device);
    complete(&bench.config, &join, &identity, join.device.clone(), &pem).expect("kept");
    let (ledger, joined, now) = bench.start();
    assert_eq!((ledger.trust_lost(), joined), (None, before));
    let trust = bench.fleet.trust();
    assert_eq!(
        ledger.memory(),
        Some(&Memory {
            trust,
            highest: None
        })
    );
    assert_eq!(now.fingerprint(), old.fingerprint());
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_waits_to_take_over_is_not_thrown_away_and_its_switch_is_tried_again() {
    let bench = Bench::new();
    let join = bench.fleet.join("default/shop-18");
    let identity = prepare(&bench.config, &join, false).expect("keys");
    // an interrupted request loses nothing
    let (_, asks) = waiting(&bench.config).expect("the agent keeps asking");
    assert_eq!(asks.fingerprint(), identity.fingerprint());
    let pem = bench.fleet.certificate(&identity, &join.device);
    complete(&bench.config, &join, &identity, join.device.clone(), &pem).expect("kept");
    let refused = prepare(&bench.config, &join, false).expect_err("one is there");
    assert!(refused.problem().help.contains("restart"), "{refused}");
    let clock = Clock::new(Timestamp::UNIX_EPOCH);
    let mut again = switching();
    let mut waits = Vec::new();
    for _ in 0..60 {
        let begun = tokio::time::Instant::now();
        let decision = ask(&bench.config, &clock, &mut again).await;
        assert!(matches!(decision, Decision::Approved));
        waits.push(begun.elapsed());
    }
    // a lasting failure is not retried every minute
    let minute = Duration::from_secs(61);
    assert!(waits[0] <= minute, "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > minute * 5), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= minute * 60), "{waits:?}");
    assert!(
        waits[20..].iter().any(|wait| *wait < minute * 30),
        "{waits:?}"
    );
    let (_, joined, now) = bench.start();
    assert_eq!(joined.device, join.device);
    assert_eq!(now.fingerprint(), identity.fingerprint());
}
