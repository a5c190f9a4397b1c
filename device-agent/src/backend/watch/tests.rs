use std::fs;
use std::path::Path;

use tokio::time::timeout;

use super::*;
use crate::backend::Files as _;
use crate::backend::files::Disk;

/// Longest wait for an event: the kernel reports at once, but the machine may be loaded.
const DEADLINE: Duration = Duration::from_secs(60);
/// A quick pace, so that any delay is the kernel's.
const QUICK: Pace = Pace {
    burst: Duration::from_millis(40),
    gap: (Duration::from_millis(40), Duration::from_millis(160)),
};
const UNIT: &str = "/etc/containers/systemd/web.container";
const DATA: &str = "/etc/flotta/workloads/web/site/page";

/// A root with these two files, watched.
async fn watched() -> (tempfile::TempDir, Disk) {
    let root = tempfile::tempdir().expect("a folder");
    for path in [UNIT, DATA] {
        put(root.path(), path, "first");
    }
    let mut disk = Disk::paced(root.path().to_owned(), QUICK);
    disk.watch(
        [UNIT, DATA]
            .map(|path| path.parse().expect("a path"))
            .into(),
    );
    // the first report is about changes from before the watch
    disk.changed().await;
    (root, disk)
}

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(&path[1..]);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, content).expect("a file");
}

/// Waits until the watch reports something, even if earlier waits were interrupted.
async fn tells(disk: &mut Disk, of: &str) {
    let told = timeout(DEADLINE, async {
        loop {
            // an interrupted wait loses nothing
            if timeout(QUICK.burst / 3, disk.changed()).await.is_ok() {
                break;
            }
        }
    });
    assert!(told.await.is_ok(), "told of {of}");
}

/// Checks that nothing is reported twice.
async fn is_quiet(disk: &mut Disk, after: &str) {
    let told = timeout(QUICK.gap.1 * 3, disk.changed()).await;
    assert!(told.is_err(), "nothing is told after {after}");
}

#[tokio::test]
async fn edits_removals_and_new_modes_are_told_and_other_files_are_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let (root, mut disk) = watched().await;
    let unit = root.path().join(&UNIT[1..]);
    is_quiet(&mut disk, "the beginning").await;
    put(root.path(), "/etc/containers/systemd/other.container", "x");
    put(root.path(), "/etc/hostname", "x");
    fs::create_dir(root.path().join("etc/flotta/workloads/other")).expect("a folder");
    is_quiet(&mut disk, "files of others").await;
    fs::write(&unit, "second").expect("written");
    tells(&mut disk, "an edit").await;
    fs::set_permissions(&unit, fs::Permissions::from_mode(0o600)).expect("set");
    tells(&mut disk, "a mode").await;
    fs::write(unit.with_extension("new"), "third").expect("written");
    fs::rename(unit.with_extension("new"), &unit).expect("moved");
    tells(&mut disk, "a file in its place").await;
    fs::remove_file(&unit).expect("removed");
    tells(&mut disk, "a removal").await;
    put(root.path(), DATA, "second");
    tells(&mut disk, "an edit of data").await;
    is_quiet(&mut disk, "all of it").await;
}

#[tokio::test]
async fn folders_that_are_removed_and_made_again_are_watched_again() {
    let (root, mut disk) = watched().await;
    for folder in [
        "etc/containers/systemd",
        "etc/containers",
        "etc/flotta/workloads/web",
        "etc/flotta",
        "etc",
    ] {
        fs::remove_dir_all(root.path().join(folder)).expect("removed");
        tells(&mut disk, &format!("the removal of {folder}")).await;
        for path in [UNIT, DATA] {
            put(root.path(), path, "again");
        }
        tells(&mut disk, &format!("{folder}, made again")).await;
        is_quiet(&mut disk, folder).await;
        for path in [UNIT, DATA] {
            put(root.path(), path, "edited");
            tells(&mut disk, &format!("an edit of {path}")).await;
        }
    }
    // the old folder was moved elsewhere: what happens there does not matter
    let (etc, aside) = (root.path().join("etc"), root.path().join("aside"));
    fs::rename(&etc, &aside).expect("moved");
    for path in [UNIT, DATA] {
        put(root.path(), path, "again");
    }
    tells(&mut disk, "another folder in its place").await;
    is_quiet(&mut disk, "that").await;
    put(&aside, &UNIT["/etc".len()..], "aside");
    is_quiet(&mut disk, "an edit aside").await;
}

#[tokio::test]
async fn who_goes_on_changing_a_file_is_looked_at_ever_less_often() {
    let (root, mut disk) = watched().await;
    for _ in 0..3 {
        put(root.path(), UNIT, "again");
        tells(&mut disk, "an edit").await;
    }
    let watch = disk.watch_of().expect("a watch");
    assert!(
        watch.gap > QUICK.gap.0 && watch.gap <= QUICK.gap.1,
        "{:?}",
        watch.gap
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_told_of_nothing_looks_once_a_minute_however_often_they_are_called_away() {
    let (_root, mut disk) = watched().await;
    // as if the kernel had refused to watch a folder
    let watch = disk.watch_of_mut().expect("a watch");
    watch.look_at = Some(Instant::now() + BLIND);
    let mut calls = 0;
    while timeout(BLIND / 4, disk.changed()).await.is_err() {
        calls += 1;
        assert!(calls < 8, "nobody has looked");
    }
    assert!(calls >= 3, "not before its time: {calls}");
}

#[test]
fn every_folder_on_the_way_is_of_interest_for_one_name() {
    let paths = [UNIT, DATA].map(|path| path.parse().expect("a path"));
    let found = folders(&paths.into());
    let names = |folder: &str| found[folder].iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(""), ["etc"]);
    assert_eq!(names("/etc"), ["containers", "flotta"]);
    assert_eq!(names("/etc/containers/systemd"), ["web.container"]);
    assert_eq!(found.len(), 8);
}
