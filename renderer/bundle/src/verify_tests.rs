use super::*;
use crate::crypto::SigningKey;
use crate::envelope::Envelope;
use crate::release::Revision;
use crate::root::{self, Role};
use crate::tree::Tree;

struct Fleet {
    key: SigningKey,
    memory: Memory,
}

fn device(n: usize) -> DeviceName {
    format!("device-{n}").parse().expect("a name")
}

fn manifest(n: u8) -> Digest {
    Digest::of(&[n])
}

impl Fleet {
    fn new() -> Self {
        let key = SigningKey::generate().expect("a key").0;
        let role = Role::any_of([key.public()]);
        let fleet = "shops".parse().expect("a fleet");
        let trust = TrustRoot {
            schema: root::SCHEMA,
            fleet,
            version: 1,
            root: role.clone(),
            release: role,
        };
        Self {
            key,
            memory: Memory {
                trust,
                highest: None,
            },
        }
    }

    fn release(&self, sequence: u64, tree: &Tree) -> Release {
        let revision = Revision {
            source: "directory".into(),
            commit: "c".into(),
            subject: String::new(),
            inventory: None,
        };
        let issued = jiff::Timestamp::UNIX_EPOCH;
        Release {
            schema: 1,
            fleet: self.memory.trust.fleet.clone(),
            sequence,
            revision,
            issued,
            expires: issued,
            tree: tree.head(),
        }
    }

    /// An offer to `device(index)` of five devices, all with the manifest given and one earlier.
    fn offer(&self, sequence: u64, index: usize, wanted: u8) -> Offer {
        let leaf = |n| {
            let before = Leaf::following(device(n), manifest(100), None);
            Leaf::following(device(n), manifest(wanted), Some(&before)).encode()
        };
        let tree = Tree::new((0..5).map(leaf));
        let release = self.release(sequence, &tree);
        Offer {
            roots: vec![],
            release: Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[&self.key]),
            leaf: String::from_utf8(leaf(index)).expect("text"),
            index: index as u64,
            proof: tree.prove(index as u64).expect("within the tree"),
            manifest: manifest(wanted),
        }
    }

    fn refused(&self, offer: &Offer) -> Code {
        verify_offer(offer, &device(2), &self.memory)
            .expect_err("refused")
            .code()
    }
}

#[test]
fn a_good_offer_is_accepted_and_remembered() {
    let fleet = Fleet::new();
    let offer = fleet.offer(7, 2, 1);
    let accepted = verify_offer(&offer, &device(2), &fleet.memory).expect("accepted");
    assert_eq!(accepted.manifest, manifest(1));
    let highest = accepted.memory.highest.expect("remembered");
    assert_eq!(
        (highest.sequence, highest.root),
        (7, accepted.release.tree.root)
    );
    assert!(
        verify_offer(&offer, &device(2), &accepted.memory).is_ok(),
        "the same offer again is no replay"
    );
}

#[test]
fn an_earlier_manifest_that_the_leaf_names_may_be_offered_and_no_other() {
    let fleet = Fleet::new();
    let mut offer = fleet.offer(7, 2, 1);
    offer.manifest = manifest(100);
    assert_eq!(
        verify_offer(&offer, &device(2), &fleet.memory)
            .expect("accepted")
            .manifest,
        manifest(100)
    );
    offer.manifest = manifest(50);
    assert_eq!(fleet.refused(&offer), code::NOT_IN_LEAF);
}

#[test]
fn older_and_equivocating_releases_are_refused() {
    let mut fleet = Fleet::new();
    fleet.memory = verify_offer(&fleet.offer(7, 2, 1), &device(2), &fleet.memory)
        .expect("accepted")
        .memory;
    assert_eq!(fleet.refused(&fleet.offer(6, 2, 1)), code::OLDER);
    assert_eq!(fleet.refused(&fleet.offer(7, 2, 9)), code::EQUIVOCATION);
    assert!(verify_offer(&fleet.offer(8, 2, 9), &device(2), &fleet.memory).is_ok());
}

#[test]
fn each_lie_has_its_code() {
    let fleet = Fleet::new();
    let good = || fleet.offer(7, 2, 1);
    let with = |change: &dyn Fn(&mut Offer)| {
        let mut offer = good();
        change(&mut offer);
        fleet.refused(&offer)
    };
    assert_eq!(fleet.refused(&fleet.offer(7, 3, 1)), code::WRONG_DEVICE);
    assert_eq!(with(&|o| o.index = 3), code::PROOF);
    assert_eq!(with(&|o| o.leaf = fleet.offer(7, 3, 1).leaf), code::PROOF);
    assert_eq!(with(&|o| o.leaf.push(' ')), code::PROOF);
    assert_eq!(with(&|o| o.proof.clear()), code::PROOF);
    let stranger = Fleet::new();
    assert_eq!(
        with(&|o| o.release = stranger.offer(7, 2, 1).release),
        code::SIGNATURE
    );
    let other_type = Envelope::sign(root::PAYLOAD_TYPE, b"{}", &[&fleet.key]);
    assert_eq!(with(&|o| o.release = other_type.clone()), code::ENVELOPE);
    let not_a_release = Envelope::sign(release::PAYLOAD_TYPE, b"{}", &[&fleet.key]);
    assert_eq!(with(&|o| o.release = not_a_release.clone()), code::ENVELOPE);
    let mut elsewhere = fleet.release(7, &Tree::new([]));
    elsewhere.fleet = "elsewhere".parse().expect("a fleet");
    let elsewhere = Envelope::sign(release::PAYLOAD_TYPE, &elsewhere.encode(), &[&fleet.key]);
    assert_eq!(with(&|o| o.release = elsewhere.clone()), code::WRONG_FLEET);
    let skips = TrustRoot {
        version: 3,
        ..fleet.memory.trust.clone()
    };
    let skips = Envelope::sign(root::PAYLOAD_TYPE, &skips.encode(), &[&fleet.key]);
    assert_eq!(with(&|o| o.roots = vec![skips.clone()]), code::ROOT_CHAIN);
}

#[test]
fn a_root_that_the_device_has_already_is_skipped() {
    let fleet = Fleet::new();
    let trust = &fleet.memory.trust;
    let second = TrustRoot {
        version: 2,
        ..trust.clone()
    };
    let sign = |root: &TrustRoot| Envelope::sign(root::PAYLOAD_TYPE, &root.encode(), &[&fleet.key]);
    // An offer on its way while the one before it was accepted, or a server that sends them all.
    let offer = Offer {
        roots: vec![sign(trust), sign(&second)],
        ..fleet.offer(7, 2, 1)
    };
    let first = verify_offer(&offer, &device(2), &fleet.memory).expect("accepted");
    assert_eq!(first.memory.trust, second);
    let again = verify_offer(&offer, &device(2), &first.memory).expect("accepted");
    assert_eq!(again.memory, first.memory);
}

#[test]
fn a_new_root_takes_the_old_key_out_of_force() {
    let fleet = Fleet::new();
    let new_key = SigningKey::generate().expect("a key").0;
    let role = Role::any_of([new_key.public()]);
    let next = TrustRoot {
        version: 2,
        root: role.clone(),
        release: role,
        ..fleet.memory.trust.clone()
    };
    let envelope = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &[&fleet.key, &new_key]);
    let mut offer = fleet.offer(7, 2, 1);
    offer.roots = vec![envelope];
    assert_eq!(
        fleet.refused(&offer),
        code::SIGNATURE,
        "the release is still by the old key"
    );
    let rotated = Fleet {
        key: new_key,
        memory: fleet.memory.clone(),
    };
    offer.release = rotated.offer(7, 2, 1).release;
    let accepted = verify_offer(&offer, &device(2), &fleet.memory).expect("accepted");
    assert_eq!(accepted.memory.trust.version, 2);
}

#[test]
fn content_must_have_the_digest_it_was_asked_by() {
    assert!(verify_blob(b"x", Digest::of(b"x")).is_ok());
    assert_eq!(
        verify_blob(b"y", Digest::of(b"x"))
            .expect_err("refused")
            .code(),
        code::DIGEST_MISMATCH
    );
    assert_eq!(
        verify_manifest(b"{}", Digest::of(b"{}"))
            .expect_err("refused")
            .code(),
        code::MANIFEST
    );
}
