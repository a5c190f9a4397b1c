use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use flotta_bundle::manifest::Mode as FileMode;
use tempfile::TempDir;

use super::*;
use crate::backend::fake::bundle::{file, path};

const CONF: &str = "/etc/flotta/workloads/web/conf/greeting";
const UNIT: &str = "/etc/containers/systemd/web.container";

/// A root directory whose `root` account is the user that runs the tests, with one more account of the same ids.
fn bench() -> (TempDir, Disk) {
    let root = tempfile::tempdir().expect("a folder");
    let me = fs::metadata(root.path()).expect("it is there");
    let (uid, gid) = (me.uid(), me.gid());
    let etc = root.path().join("etc");
    fs::create_dir(&etc).expect("made");
    let passwd = format!("root:x:{uid}:0::/:/bin/sh\nweb:x:{uid}:1::/:\n");
    fs::write(etc.join("passwd"), passwd).expect("written");
    let group = format!("root:x:{gid}:\nweb:x:{gid}:\n");
    fs::write(etc.join("group"), group).expect("written");
    let disk = Disk::new(root.path().to_owned());
    (root, disk)
}

fn at(root: &TempDir, path: &str) -> PathBuf {
    root.path().join(path.trim_start_matches('/'))
}

fn write(disk: &mut Disk, path: &str, content: &str) -> Result<(), BackendError> {
    disk.write(&file(path, content.as_bytes()), content.as_bytes())
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_with_its_folders_mode_and_owner() {
    let (root, mut disk) = bench();
    let mut file = file(CONF, b"hello");
    file.mode = FileMode::new(0o640);
    file.owner = "web".to_owned();
    file.group = "web".to_owned();
    assert_eq!(disk.look(&file), Ok(Found::Absent));
    disk.write(&file, b"hello").expect("written");
    let there = at(&root, CONF);
    assert_eq!(fs::read(&there).expect("read"), b"hello");
    let metadata = fs::metadata(&there).expect("it is there");
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    let me = fs::metadata(root.path()).expect("it is there");
    assert_eq!((metadata.uid(), metadata.gid()), (me.uid(), me.gid()));
    let folder = there.parent().expect("a folder");
    assert_eq!(names(folder), ["greeting"], "no temporary stays");
    let found = |fits| Found::File {
        digest: file.digest,
        fits,
    };
    assert_eq!(disk.look(&file), Ok(found(true)));
    fs::set_permissions(&there, fs::Permissions::from_mode(0o644)).expect("changed");
    assert_eq!(disk.look(&file), Ok(found(false)));
    disk.write(&file, b"hello").expect("written");
    assert_eq!(disk.look(&file), Ok(found(true)));
}

#[test]
fn a_file_of_another_owner_does_not_fit() {
    let (root, mut disk) = bench();
    write(&mut disk, UNIT, "a").expect("written");
    let other = fs::metadata(root.path()).expect("it is there").uid() + 1;
    let passwd = format!("root:x:{other}:0::/:/bin/sh\n");
    fs::write(at(&root, "/etc/passwd"), passwd).expect("written");
    let found = disk.look(&file(UNIT, b"a"));
    assert!(
        matches!(found, Ok(Found::File { fits: false, .. })),
        "{found:?}"
    );
}

#[test]
fn an_account_that_is_not_there_is_named() {
    let (root, mut disk) = bench();
    let mut file = file(CONF, b"hello");
    file.owner = "nobody-here".to_owned();
    let error = disk.write(&file, b"hello").expect_err("refused");
    assert_eq!(
        error.to_string(),
        format!("{CONF}: there is no user or group named nobody-here")
    );
    assert!(
        !at(&root, "/etc/flotta").exists(),
        "before anything is made"
    );
}

#[test]
fn what_an_earlier_death_left_is_overwritten_or_swept() {
    let (root, mut disk) = bench();
    let folder = at(&root, "/etc/flotta/workloads/web/conf");
    fs::create_dir_all(&folder).expect("made");
    let stale = folder.join(".greeting.flotta-new");
    fs::write(&stale, "hel").expect("written");
    write(&mut disk, CONF, "hello").expect("written");
    assert_eq!(names(&folder), ["greeting"]);
    assert_eq!(fs::read(at(&root, CONF)).expect("read"), b"hello");
    // A link left as the temporary file does not lead out either.
    symlink(at(&root, "/etc/passwd"), &stale).expect("made");
    write(&mut disk, CONF, "hello again").expect("written");
    assert_eq!(names(&folder), ["greeting"]);
    let passwd = fs::read_to_string(at(&root, "/etc/passwd")).expect("read");
    assert!(passwd.starts_with("root:"));
    // The file was never completed, and is to be removed.
    fs::remove_file(at(&root, CONF)).expect("removed");
    fs::write(&stale, "hel").expect("written");
    disk.remove(&path(CONF)).expect("removed");
    assert_eq!(names(&at(&root, "/etc/flotta")), ["workloads"]);
    assert_eq!(names(&at(&root, "/etc/flotta/workloads")), [""; 0]);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let (root, mut disk) = bench();
    // A folder cannot be replaced by a file, even by root.
    let folder = at(&root, UNIT);
    fs::create_dir_all(folder.join("mine")).expect("made");
    assert_eq!(disk.look(&file(UNIT, b"a")), Ok(Found::Other));
    write(&mut disk, UNIT, "a").expect_err("refused");
    disk.remove(&path(UNIT)).expect_err("refused");
    assert_eq!(
        names(&at(&root, "/etc/containers/systemd")),
        ["web.container"]
    );
    assert_eq!(names(&folder), ["mine"]);
}

#[test]
fn no_folder_of_a_path_may_be_a_link() {
    let parts = [
        "/etc/flotta",
        "/etc/flotta/workloads",
        "/etc/flotta/workloads/web",
        "/etc/flotta/workloads/web/conf",
    ];
    for link in parts {
        let (root, mut disk) = bench();
        let outside = at(&root, "/outside");
        let rest = CONF.strip_prefix(link).expect("a part of it");
        let target = outside.join(rest.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        fs::write(&target, "theirs").expect("written");
        let link = at(&root, link);
        fs::create_dir_all(link.parent().expect("a folder")).expect("made");
        symlink(&outside, &link).expect("made");
        let errors = [
            disk.look(&file(CONF, b"x")).map(|_| ()),
            write(&mut disk, CONF, "ours"),
            disk.remove(&path(CONF)),
        ];
        for error in errors {
            let error = error.expect_err("refused").to_string();
            assert!(
                error.ends_with("there is a link or a file where a folder should be"),
                "{error}"
            );
        }
        assert_eq!(fs::read(&target).expect("read"), b"theirs");
        assert!(link.is_symlink());
        assert_eq!(names(target.parent().expect("a folder")), ["greeting"]);
    }
}

#[test]
fn a_link_in_place_of_the_file_is_seen_and_its_target_untouched() {
    let (root, mut disk) = bench();
    let there = at(&root, UNIT);
    fs::create_dir_all(there.parent().expect("a folder")).expect("made");
    let target = at(&root, "/etc/shadow");
    fs::write(&target, "secret").expect("written");
    symlink(&target, &there).expect("made");
    assert_eq!(disk.look(&file(UNIT, b"secret")), Ok(Found::Other));
    write(&mut disk, UNIT, "ours").expect("the link is replaced");
    assert!(!there.is_symlink());
    assert_eq!(fs::read(&target).expect("read"), b"secret");
    fs::remove_file(&there).expect("removed");
    symlink(&target, &there).expect("made");
    disk.remove(&path(UNIT)).expect("the link is removed");
    assert!(!there.is_symlink());
    assert_eq!(fs::read(&target).expect("read"), b"secret");
}

#[test]
fn what_is_no_plain_file_is_not_read() {
    let (root, mut disk) = bench();
    let there = at(&root, UNIT);
    fs::create_dir_all(there.parent().expect("a folder")).expect("made");
    let mode = Mode::from_raw_mode(0o600);
    // Nobody writes to this FIFO, so reading it would block for ever.
    rustix::fs::mknodat(rustix::fs::CWD, &there, FileType::Fifo, mode, 0).expect("made");
    assert_eq!(disk.look(&file(UNIT, b"")), Ok(Found::Other));
}

#[test]
fn empty_folders_go_below_the_workloads_folder_and_nowhere_else() {
    let (root, mut disk) = bench();
    let other = "/etc/flotta/workloads/web/other/key";
    for path in [CONF, other, UNIT] {
        write(&mut disk, path, "x").expect("written");
    }
    disk.remove(&path(CONF)).expect("removed");
    assert_eq!(names(&at(&root, "/etc/flotta/workloads/web")), ["other"]);
    let by_hand = at(&root, "/etc/flotta/workloads/web/by-hand");
    fs::write(&by_hand, "mine").expect("written");
    disk.remove(&path(other)).expect("removed");
    assert_eq!(names(&at(&root, "/etc/flotta/workloads/web")), ["by-hand"]);
    fs::remove_file(&by_hand).expect("removed");
    disk.remove(&path(other)).expect("again");
    assert_eq!(
        names(&at(&root, "/etc/flotta/workloads")),
        [""; 0],
        "it stays itself"
    );
    disk.remove(&path(UNIT)).expect("removed");
    assert_eq!(
        names(&at(&root, "/etc/containers/systemd")),
        [""; 0],
        "it stays itself"
    );
}

/// Whatever a crash left of the file and its folders, removing it again removes the rest.
#[test]
fn a_removal_that_was_interrupted_is_finished() {
    for left in [
        "/etc/flotta/workloads/web/conf",
        "/etc/flotta/workloads/web",
        "/etc/flotta/workloads",
    ] {
        let (root, mut disk) = bench();
        fs::create_dir_all(at(&root, left)).expect("made");
        disk.remove(&path(CONF)).expect("removed");
        assert_eq!(
            names(&at(&root, "/etc/flotta/workloads")),
            [""; 0],
            "{left}"
        );
    }
    let (root, mut disk) = bench();
    disk.remove(&path(CONF)).expect("nothing is there");
    assert!(!at(&root, "/etc/flotta").exists());
}

#[test]
fn a_mark_is_of_one_path_and_an_older_one_counts_where_a_manifest_names_the_file() {
    use rustix::fs::XattrFlags;
    const NAME: &str = "user.flotta.written";
    let (root, mut disk) = bench();
    write(&mut disk, UNIT, "a").expect("written");
    let mut mark = [0; 128];
    let length = rustix::fs::getxattr(at(&root, UNIT), NAME, &mut mark).expect("a mark");
    // `cp -a`
    let copied = UNIT.replace("web", "mine");
    fs::copy(at(&root, UNIT), at(&root, &copied)).expect("copied");
    let put = |path: &str, mark: &[u8]| {
        rustix::fs::setxattr(at(&root, path), NAME, mark, XattrFlags::empty()).expect("marked");
    };
    put(&copied, &mark[..length]);
    let told = |disk: &mut Disk| {
        let mut told = Vec::new();
        disk.each_written(&mut |path, _, _| told.push(path.to_string()));
        told
    };
    assert_eq!(told(&mut disk), [UNIT]);
    assert!(disk.written(&path(UNIT)).is_some());
    assert!(disk.written(&path(&copied)).is_none());
    put(UNIT, Digest::of(b"a").to_string().as_bytes());
    assert_eq!(told(&mut disk), [""; 0]);
    assert!(disk.written(&path(UNIT)).is_some());
    put(UNIT, Digest::of(b"b").to_string().as_bytes());
    assert!(disk.written(&path(UNIT)).is_none());
}
