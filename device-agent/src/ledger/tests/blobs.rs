//! Blobs that are fetched, kept and collected.

use super::*;

#[test]
fn a_blob_goes_on_where_it_was_interrupted() {
    let (state, ledger) = bench();
    let digest = Digest::of(b"hello world");
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    partial.append(b"hello ").expect("written");
    drop(partial);
    let ledger = Ledger::open(state.path()).expect("a ledger");
    assert!(!ledger.blobs().has(&digest));
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    assert_eq!(partial.len(), 6);
    partial.append(b"world").expect("written");
    partial.finish().expect("kept").expect("as it should be");
    assert!(ledger.blobs().has(&digest));
    assert_eq!(ledger.blobs().read(&digest).expect("read"), b"hello world");
    assert_eq!(names(&state.path().join("blobs/sha256")), [digest.hex()]);
}

#[test]
fn a_blob_that_is_something_else_is_thrown_away() {
    let (state, ledger) = bench();
    let digest = Digest::of(b"hello world");
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    partial.append(b"hello evil!").expect("written");
    let refusal = partial.finish().expect("read").expect_err("refused");
    assert_eq!(refusal.problem().code, code::DIGEST_MISMATCH.id);
    assert_eq!(names(&state.path().join("blobs/sha256")), [""; 0]);
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    assert_eq!(partial.len(), 0);
    partial.append(b"other").expect("written");
    partial.restart().expect("emptied");
    partial.append(b"hello world").expect("written");
    partial.finish().expect("kept").expect("as it should be");
}

#[test]
fn a_blob_that_the_disk_lost_is_fetched_again() {
    let (state, ledger) = bench();
    let digest = Digest::of(b"hello world");
    let path = state.path().join("blobs/sha256").join(digest.hex());
    fs::write(&path, b"hello w\0rld").expect("written");
    ledger.blobs().read(&digest).expect_err("not what it was");
    assert!(!ledger.blobs().has(&digest));
    ledger.blobs().read(&digest).expect_err("not there");
}

#[test]
fn what_no_manifest_needs_is_collected() {
    let (state, ledger) = bench();
    for content in [b"one", b"two"] {
        let mut partial = ledger
            .blobs()
            .partial(&Digest::of(content))
            .expect("a file");
        partial.append(content).expect("written");
        partial.finish().expect("kept").expect("as it should be");
    }
    ledger
        .blobs()
        .partial(&Digest::of(b"three"))
        .expect("begun");
    let folder = state.path().join("blobs/sha256");
    symlink("/etc/hostname", folder.join("link")).expect("made");
    let keep = Digest::of(b"two");
    ledger.blobs().collect(&[keep].into()).expect("collected");
    assert_eq!(names(&folder), [keep.hex()]);
}

#[test]
fn nothing_is_written_that_would_not_be_read_again() {
    let (state, mut ledger) = bench();
    ledger.own(owned("web.service"), None).expect("written");
    let names = (0..MAX_BYTES / 100).map(|n| format!("{n:0>100}.service"));
    let units = names.map(|name| (name, owned("web.service").units["web.service"].clone()));
    let many = Owned {
        units: units.collect(),
        ..Owned::default()
    };
    let error = ledger.own(many, None).expect_err("refused");
    assert!(
        crate::pull::chain(&error).contains("longer than"),
        "{error}"
    );
    assert!(!error.is_full());
    for _ in 0..MAX_EVENTS {
        let long = "x".repeat(MAX_BYTES / MAX_EVENTS);
        let noted = ledger.note(NOW, "Applied", format!("{}{long}", ledger.log.last), false);
        noted.expect("cut, and written");
    }
    let again = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(again.owned(), &owned("web.service"));
    assert_eq!(again.unacknowledged().len(), MAX_EVENTS);
    let longest = again
        .unacknowledged()
        .iter()
        .map(|event| event.message.chars().count());
    assert_eq!(
        longest.max(),
        Some(MAX_MESSAGE + 1),
        "with a mark where it was cut"
    );
}

#[test]
fn what_was_not_applied_gives_way_and_what_was_stays() {
    let (state, mut ledger) = bench();
    let keep = |ledger: &Ledger, content: &[u8]| {
        let digest = Digest::of(content);
        let mut partial = ledger.blobs().partial(&digest).expect("a file");
        partial.append(content).expect("written");
        partial.finish().expect("kept").expect("as it should be");
        digest
    };
    let of_file = |ledger: &Ledger, file: Digest| {
        let manifest = format!(
            r#"{{"schema":1,"files":[{{"path":"/etc/flotta/workloads/web/page","mode":"0644","owner":"root","group":"root","digest":"{file}","size":6,"kind":"data"}}],"units":[],"images":[],"settings":{{"heartbeat_seconds":60}}}}"#
        );
        let manifest = flotta_bundle::Manifest::parse(manifest.as_bytes()).expect("a manifest");
        keep(ledger, &manifest.encode())
    };
    let file = keep(&ledger, b"a page");
    let manifest = of_file(&ledger, file);
    let applied = AppliedState {
        manifest,
        release: 1,
        since: NOW,
    };
    ledger
        .own(Owned::default(), Some(applied))
        .expect("written");
    let coming = keep(&ledger, b"the next page");
    ledger
        .blobs()
        .partial(&Digest::of(b"another"))
        .expect("begun");
    let folder = state.path().join("blobs/sha256");
    assert_eq!(names(&folder).len(), 4);
    // wanted blobs stay, complete or not
    let wanted = [coming, Digest::of(b"another"), manifest, file];
    ledger.blobs().collect(&wanted.into()).expect("collected");
    assert_eq!(names(&folder).len(), 4);
    let left = |ledger: &Ledger, what: &[Digest]| {
        ledger.make_room().expect("made");
        let what: BTreeSet<_> = what.iter().map(Digest::hex).collect();
        assert_eq!(names(&folder), Vec::from_iter(what));
    };
    left(&ledger, &[manifest, file]);
    // an accepted manifest that is completely fetched stays: it can be applied without the server
    let fleet = Fleet::new();
    ledger.begin(fleet.memory()).expect("written");
    let next_file = Digest::of(b"next page");
    let next = of_file(&ledger, next_file);
    fleet.take(&mut ledger, &fleet.offer_of(2, next));
    left(&ledger, &[manifest, file]);
    of_file(&ledger, keep(&ledger, b"next page"));
    left(&ledger, &[manifest, file, next, next_file]);
}

#[test]
fn what_the_disk_has_no_space_for_is_not_begun() {
    let (state, ledger) = bench();
    let blobs = ledger.blobs();
    let (small, large) = (Digest::of(b"small"), Digest::of(b"large"));
    blobs.expect(&[].into()).expect("nothing is to come");
    let fits = [(small, 1)].into();
    blobs
        .expect(&fits)
        .expect("there is a byte, and the reserve");
    let too_large = [(small, 1), (large, u64::MAX)].into();
    let error = blobs.expect(&too_large).expect_err("refused");
    assert!(error.is_full());
    let said = crate::pull::chain(&error);
    assert!(
        said.contains("No space left: ") && said.contains("1 MiB are reserved"),
        "{said}"
    );
    // bytes that are there already need no more space
    assert_eq!(blobs.missing(&[(small, 11)].into(), 4), (3, 1));
    let mut partial = blobs.partial(&small).expect("a file");
    partial.append(b"sm").expect("written");
    assert_eq!(blobs.missing(&[(small, 11)].into(), 4), (2, 0));
    partial.append(b"all").expect("written");
    partial.finish().expect("kept").expect("as it should be");
    assert_eq!(blobs.missing(&[(small, 11), (large, 8)].into(), 4), (2, 1));
    let mut disk = rustix::fs::statvfs(state.path()).expect("a disk");
    (disk.f_blocks, disk.f_bavail, disk.f_frsize) = (1000, 300, 4096);
    (disk.f_files, disk.f_favail) = (1000, 20);
    for (blocks, inodes, lacks_what) in [
        (44, 4, None),
        (45, 4, Some("1 MiB are needed, 1 MiB are free")),
        (44, 5, Some("5 files are needed, and too few inodes")),
        (u64::MAX, 0, Some("No space left: ")),
        (0, 0, None),
    ] {
        let said = lacks(&disk, (blocks, inodes));
        assert_eq!(said.is_some(), lacks_what.is_some(), "{said:?}");
        let named = lacks_what.is_none_or(|what| said.as_ref().is_some_and(|s| s.contains(what)));
        assert!(named, "{said:?}");
    }
    (disk.f_bavail, disk.f_favail) = (0, 0);
    assert_eq!(lacks(&disk, (0, 0)), None, "nothing is to come");
    (disk.f_blocks, disk.f_files) = (0, 0);
    assert_eq!(lacks(&disk, (45, 5)), None, "who does not say is not asked");
}
