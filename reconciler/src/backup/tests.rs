use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flotta_bundle::{DeviceName, Digest, code};
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::fixture::{Fixture, TestDevice, bundle, name, release};
use crate::keys::{FirstStart, Fleet};
use crate::publish::Published;
use crate::store::Store;

/// A data directory with a joined device, a pending request, and a release with its blobs.
struct Scene {
    folder: TempDir,
    shop: TestDevice,
    fleet: Digest,
}

impl Scene {
    async fn new() -> (Self, Fixture) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let fixture = Fixture::open(&data);
        let shop = TestDevice::new("shop");
        let token = fixture.token(Some("shop")).await;
        let from = "192.0.2.1".parse().unwrap();
        for request in [
            shop.request(Some(token)),
            TestDevice::new("kiosk").request(None),
        ] {
            let asked = fixture
                .enroller
                .enrol(request, None, from, Timestamp::now());
            asked.await.unwrap();
        }
        let (manifest, blobs) = bundle(b"hello");
        let published = published(&fixture, 7, manifest);
        fixture.depot.put_blobs(&blobs).await.unwrap();
        // blobs that no release needs are not in a backup
        fixture
            .depot
            .put_blobs(&bundle(b"long ago").1)
            .await
            .unwrap();
        fixture
            .depot
            .put_release(7, &published.stored())
            .await
            .unwrap();
        fixture.depot.put_head(7).await.unwrap();
        let scene = Self {
            fleet: fixture.fleet.trust_root_fingerprint(),
            folder,
            shop,
        };
        (scene, fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn backup(&self) -> PathBuf {
        let to = self.path("backup.tar");
        let made = make(&self.path("data"), &to, &[], Timestamp::now())
            .await
            .unwrap();
        assert_eq!((made.path, made.left_out), (to.clone(), 0));
        to
    }

    fn restore(&self, from: &Path, to: &str, revoked: &[&str]) -> Result<Restored, BackupError> {
        let revoked = revoked.iter().map(|text| name(text)).collect();
        restore(from, None, &self.path(to), &revoked, Timestamp::now())
    }
}

fn published(fixture: &Fixture, sequence: u64, manifest: Digest) -> Published {
    let leaf = release(&fixture.fleet, sequence, &[("shop", &[manifest])]);
    let leaf = leaf.leaf(&name("shop")).unwrap();
    let revision = flotta_bundle::release::Revision {
        source: "directory".to_owned(),
        commit: "c".to_owned(),
        subject: String::new(),
        inventory: None,
    };
    let key = fixture.fleet.release_key().unwrap();
    let leaves = [(name("shop"), leaf)].into();
    Published::sign(
        fixture.fleet.name(),
        &key,
        sequence,
        revision,
        leaves,
        Timestamp::now(),
    )
}

#[tokio::test]
async fn what_is_restored_is_the_fleet_that_was_backed_up_while_it_was_served() {
    let (scene, fixture) = Scene::new().await;
    // the store is open and being written while it is copied
    let store = fixture.store.clone();
    let busy = tokio::spawn(async move {
        for count in 0..200 {
            store.set_meta("busy", format!("{count}")).await.unwrap();
        }
    });
    let backup = scene.backup().await;
    busy.await.unwrap();
    let RestoreSource::Backup(contents) = RestoreSource::look(&backup, None).unwrap() else {
        panic!("not a backup");
    };
    assert_eq!(
        (contents.release, contents.devices, contents.requests),
        (Some(7), 1, 1)
    );
    let of_depot = contents
        .files
        .iter()
        .filter(|file| file.path.starts_with("depot/blobs"));
    assert_eq!(of_depot.count(), 2, "{contents:?}");
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(fixture);

    scene.restore(&backup, "new", &[]).unwrap();
    let fixture = Fixture::open(&scene.path("new"));
    assert_eq!(fixture.fleet.trust_root_fingerprint(), scene.fleet);
    let member = fixture.store.member(&name("shop")).unwrap();
    assert_eq!(member.key(), scene.shop.fingerprint());
    assert_eq!(fixture.store.requests().await.unwrap().len(), 1);
    assert!(fixture.store.is_restored().await.unwrap());
    let head = fixture.depot.head().await.unwrap().unwrap();
    let stored = fixture.depot.release(head.sequence).await.unwrap().unwrap();
    let role = &fixture.fleet.trust_root().release;
    let published = Published::open(&stored, role).unwrap();
    assert_eq!(published.release.sequence, 7);
    let (_, blobs) = bundle(b"hello");
    for digest in blobs.keys() {
        assert!(fixture.depot.blob(digest).await.unwrap().is_some());
    }
}

/// Every file below a folder, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_nothing_is_written() {
    let (scene, fixture) = Scene::new().await;
    drop(fixture);
    let backup = scene.backup().await;
    let whole = fs::read(&backup).unwrap();
    let damaged = scene.path("damaged.tar");
    let (mut tried, mut refused) = (0, 0);
    let mut harmless = 0;
    let mut attempt = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        tried += 1;
        match archive::check(&damaged, None) {
            Err(error) => {
                assert_eq!(error.code().id, code::BACKUP.id, "{error}");
                refused += 1;
                // every now and then with a full restore
                if tried % 50 == 0 {
                    assert!(scene.restore(&damaged, "new", &[]).is_err());
                    assert!(!scene.path("new").exists());
                }
            }
            // changes of padding, times and owners in tar's own headers do not matter
            Ok(contents) => {
                assert_eq!(contents, archive::check(&backup, None).unwrap());
                harmless += 1;
            }
        }
    };
    for cut in (0..whole.len()).step_by(whole.len() / 150) {
        attempt(&whole[..cut]);
    }
    for at in (0..whole.len()).step_by(whole.len() / 400) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        attempt(&bytes);
    }
    println!("backups: {tried} damaged, {refused} refused, {harmless} in what says nothing");
    assert!(refused > tried / 2, "{refused} of {tried}");
}

#[tokio::test]
async fn an_encrypted_backup_is_restored_by_its_identity_alone() {
    let (scene, fixture) = Scene::new().await;
    drop(fixture);
    // as `age-keygen` writes them
    let file = "# public key: age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj\n\
        AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n";
    let mine = Identity::parse(file).unwrap();
    let recipient: Recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
        .parse()
        .unwrap();
    assert_eq!(mine.recipient(), recipient);
    let backup = scene.path("backup.tar.age");
    let to = std::slice::from_ref(&recipient);
    make(&scene.path("data"), &backup, to, Timestamp::now())
        .await
        .unwrap();
    let error = RestoreSource::look(&backup, None).unwrap_err();
    assert!(error.to_string().contains("--identity"), "{error}");
    let text = fs::read(&backup).unwrap();
    let key = fs::read(scene.path("data/keys/release.pem")).unwrap();
    let line = key.split(|byte| *byte == b'\n').nth(1).unwrap();
    assert!(!text.windows(line.len()).any(|window| window == line));
    // a truncated file is found before anything is written
    fs::write(scene.path("cut"), &text[..text.len() - 100]).unwrap();
    let (to, none) = (scene.path("new"), BTreeSet::new());
    let cut = restore(
        &scene.path("cut"),
        Some(&mine),
        &to,
        &none,
        Timestamp::now(),
    );
    assert!(matches!(cut, Err(BackupError::Damaged(..))) && !to.exists());
    restore(&backup, Some(&mine), &to, &none, Timestamp::now()).unwrap();
    let fixture = Fixture::open(&to);
    assert_eq!(fixture.fleet.trust_root_fingerprint(), scene.fleet);
    assert!(fixture.store.member(&name("shop")).is_some());
}

/// An archive with these files in it, as its contents say.
fn archive(to: &Path, schema: u32, files: &[(&str, &[u8])], more: &[&str]) {
    let contents = Contents {
        schema,
        fleet: "shops".parse().unwrap(),
        made: Timestamp::now(),
        by: "test".to_owned(),
        release: None,
        devices: 0,
        requests: 0,
        files: files
            .iter()
            .map(|(path, content)| Entry {
                path: (*path).to_owned(),
                size: content.len() as u64,
                digest: Digest::of(content),
            })
            .collect(),
    };
    let mut builder = tar::Builder::new(fs::File::create(to).unwrap());
    let json = serde_json::to_vec(&contents).unwrap();
    let digest = Digest::of(&json).to_string();
    let digest = (schema > 1).then_some((CONTENTS_DIGEST, digest.as_bytes()));
    let more = more.iter().map(|path| (*path, &b"x"[..]));
    for (path, content) in [(CONTENTS, &json[..])]
        .into_iter()
        .chain(digest)
        .chain(files.iter().copied())
        .chain(more)
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        // written directly, because the library refuses such names
        let name = &mut header.as_gnu_mut().unwrap().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap().flush().unwrap();
}

#[test]
fn an_archive_that_reaches_elsewhere_or_is_newer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    // every version is still read
    for schema in 1..=SCHEMA {
        archive(&path, schema, &[("keys/fleet", b"shops")], &[]);
        archive::check(&path, None).unwrap();
    }
    for place in [
        "../keys/fleet",
        "/etc/passwd",
        "keys/../../x",
        "keys",
        "fleet.db/x",
        "store.lock",
        "",
    ] {
        archive(&path, SCHEMA, &[(place, b"x")], &[]);
        let error = archive::check(&path, None).unwrap_err();
        assert_eq!(error.code().id, code::BACKUP.id, "{place}: {error}");
    }
    archive(&path, SCHEMA, &[("keys/fleet", b"shops")], &["keys/more"]);
    assert!(
        archive::check(&path, None)
            .unwrap_err()
            .to_string()
            .contains("do not list")
    );
    archive(&path, SCHEMA + 1, &[], &[]);
    let error = archive::check(&path, None).unwrap_err();
    assert!(
        error.to_string().contains("use the newer flotta"),
        "{error}"
    );
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_no_data_directory_and_can_be_begun_anew() {
    let (scene, fixture) = Scene::new().await;
    drop(fixture);
    let backup = scene.backup().await;
    scene.restore(&backup, "whole", &[]).unwrap();
    let whole = scene.path("whole");
    let parts = ["depot", "status.db", "fleet.db", "keys"];
    for moved in 0..=parts.len() {
        // as after an interruption after this many renames
        let cut = scene.path(&format!("cut{moved}"));
        let new = cut.join(UNFINISHED);
        fs::create_dir_all(&new).unwrap();
        for (count, part) in parts.iter().enumerate() {
            let place = if count < moved { &cut } else { &new };
            let copied = std::process::Command::new("cp")
                .arg("-a")
                .args([whole.join(part), place.join(part)])
                .status();
            assert!(copied.unwrap().success());
        }
        let error = crate::keys::make_data_directory(&cut).unwrap_err();
        assert_eq!(error.code().id, code::UNFINISHED.id);
        scene.restore(&backup, &format!("cut{moved}"), &[]).unwrap();
        crate::keys::make_data_directory(&cut).unwrap();
        let fixture = Fixture::open(&cut);
        assert_eq!(fixture.fleet.trust_root_fingerprint(), scene.fleet);
        assert!(fixture.store.member(&name("shop")).is_some());
    }
}

#[tokio::test]
async fn nothing_is_restored_over_anything() {
    let (scene, fixture) = Scene::new().await;
    drop(fixture);
    let backup = scene.backup().await;
    let before = files(&scene.path("data"));
    let error = scene.restore(&backup, "data", &[]).unwrap_err();
    assert_eq!(error.code().id, code::NOT_EMPTY.id, "{error}");
    assert_eq!(files(&scene.path("data")), before);
    // nor does a backup overwrite one
    let again = make(&scene.path("data"), &backup, &[], Timestamp::now()).await;
    assert!(matches!(again, Err(BackupError::Exists(_))));
    // an empty folder, as a package creates it, can be restored to
    fs::create_dir(scene.path("empty")).unwrap();
    scene.restore(&backup, "empty", &[]).unwrap();
}

#[tokio::test]
async fn keys_alone_are_the_fleet_and_keys_in_keys_are_named() {
    let (scene, fixture) = Scene::new().await;
    drop(fixture);
    let keys = scene.path("flotta-keys");
    export(&scene.path("data"), &keys).unwrap();
    scene.restore(&keys, "new", &["thief"]).unwrap();
    let fixture = Fixture::open(&scene.path("new"));
    assert_eq!(fixture.fleet.trust_root_fingerprint(), scene.fleet);
    assert!(fixture.store.member(&name("shop")).is_none());
    drop(fixture);

    // `cp -r flotta-keys data/keys` after a server was started
    let wrong = scene.path("wrong");
    drop(Fixture::open(&wrong));
    keys::copy(&keys, &wrong.join("keys/flotta-keys")).unwrap();
    let first = FirstStart {
        fleet: None,
        names: Vec::new(),
        now: Timestamp::now(),
    };
    let error = Fleet::open_or_create(&wrong, &first).unwrap_err();
    assert_eq!(error.code().id, code::NESTED_KEYS.id);
    assert!(error.to_string().contains("flotta-keys"), "{error}");
    assert!(matches!(
        export(&wrong, &scene.path("out")),
        Err(BackupError::Keys(_))
    ));
    // and the folder that the error names can be restored
    scene
        .restore(&wrong.join("keys/flotta-keys"), "right", &[])
        .unwrap();
    let fixture = Fixture::open(&scene.path("right"));
    assert_eq!(fixture.fleet.trust_root_fingerprint(), scene.fleet);
}

#[tokio::test]
async fn a_token_that_may_have_been_used_since_lets_nobody_in() {
    let (scene, fixture) = Scene::new().await;
    let token = fixture.token(Some("later")).await;
    drop(fixture);
    let backup = scene.backup().await;
    let restored = scene.restore(&backup, "new", &[]).unwrap();
    assert_eq!(restored.tokens, 1);
    let fixture = Fixture::open(&scene.path("new"));
    let request = TestDevice::new("later").request(Some(token));
    let from = "192.0.2.1".parse().unwrap();
    let asked = fixture
        .enroller
        .enrol(request, None, from, Timestamp::now());
    let refused = asked.await.unwrap_err();
    assert_eq!(refused.code().id, code::TOKEN_EXPIRED.id, "{refused}");
}

#[tokio::test]
async fn who_was_revoked_since_stays_so_known_or_not() {
    let (scene, fixture) = Scene::new().await;
    drop(fixture);
    let backup = scene.backup().await;
    let restored = scene.restore(&backup, "new", &["shop", "later"]).unwrap();
    let names =
        |names: &BTreeSet<DeviceName>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&restored.revoked), ["default/shop"]);
    assert_eq!(names(&restored.barred), ["default/later"]);
    let fixture = Fixture::open(&scene.path("new"));
    assert!(fixture.store.member(&name("shop")).is_none());
    assert!(
        fixture
            .store
            .is_revoked(&name("shop"), &scene.shop.fingerprint())
    );
    let later = TestDevice::new("later");
    assert!(fixture.store.is_revoked(&later.name, &later.fingerprint()));
    let from = "192.0.2.1".parse().unwrap();
    let certified = crate::enrol::Certified {
        device: later.name.clone(),
        key: later.fingerprint(),
    };
    let asks = |token| {
        let request = later.request(token);
        fixture
            .enroller
            .enrol(request, Some(&certified), from, Timestamp::now())
    };
    let refused = asks(None).await.unwrap_err();
    assert_eq!(refused.code().id, code::REVOKED.id);
    assert!(asks(Some(fixture.token(Some("later")).await)).await.is_ok());
    drop(fixture);
    // it is durable: the device that joined since then is revoked, and every key with a certificate for the name is refused
    let store = Store::open(&scene.path("new")).unwrap();
    let member = store.member(&later.name).unwrap();
    assert_eq!(member.key(), later.fingerprint());
    let thief = TestDevice::new("later");
    assert!(store.is_revoked(&thief.name, &thief.fingerprint()));
    assert!(store.is_revoked(&name("shop"), &scene.shop.fingerprint()));
}

/// A server that was off for a month doubts a clock that is not synchronised, but an old backup is not such a month.
#[tokio::test]
async fn an_old_backup_says_nothing_about_the_clock_of_the_new_machine() {
    let (scene, fixture) = Scene::new().await;
    let now = Timestamp::now();
    let day = jiff::SignedDuration::from_hours(24);
    let kept = format!("{:.0}", now - day * 40);
    fixture
        .store
        .set_meta(crate::clock::KEPT, kept)
        .await
        .unwrap();
    let backup = scene.backup().await;
    drop(fixture);
    scene.restore(&backup, "new", &[]).unwrap();
    let store = Fixture::open(&scene.path("new")).store;
    // a clock before the release in the backup is wrong all the same
    for (signed, is_doubted) in [(now - day * 40, false), (now + day, true)] {
        let clock = Clock::default();
        clock.signed(signed);
        let change = clock.resume(&store, now, None).await.unwrap();
        assert_eq!(change.is_some(), is_doubted, "{signed}");
    }
}
