//! Units and files that belong to the host, or that cannot be observed.

use super::*;

#[test]
fn a_unit_of_the_host_is_taken() {
    let (steps, held) = steps(&[], &[web(), Workload::new("job")], |observed, _| {
        let unit = up("/etc/systemd/system/web.service");
        observed.units.insert("web.service".to_owned(), unit);
    });
    assert_eq!(held, ["web FLT0504"]);
    let expected = [
        "begin",
        "write job.container",
        "reload",
        "reloaded",
        "start job.service",
        "finish",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_file_of_the_host_is_taken_unless_it_is_the_very_one() {
    let bundle = Bundle::of(&[web()]);
    let own = |content: Digest| {
        steps(&[], &[web()], move |observed, _| {
            let found = Found::File {
                digest: content,
                fits: true,
            };
            observed.files.insert(container(), found);
            observed
                .units
                .insert("web.service".to_owned(), up(container().as_str()));
        })
    };
    let (other, held) = own(Digest::of(b"other"));
    assert_eq!((other, held), (vec![], vec!["web FLT0504".to_owned()]));
    let at = bundle
        .manifest
        .files
        .iter()
        .find(|file| file.path == container());
    let (same, held) = own(at.expect("it is there").digest);
    assert_eq!(held, NONE);
    let expected = [
        "begin",
        "write greeting",
        "reloaded",
        "restart web.service",
        "finish",
    ];
    assert_eq!(
        same, expected,
        "adopted, and known to run with its files from then on"
    );
}

#[test]
fn what_cannot_be_seen_is_not_changed() {
    let (steps_, held) = steps(&[], &[web()], |observed, _| {
        observed.files.remove(&container());
        let error = BackendError::Other("Input/output error".to_owned());
        observed.blind.insert(container().to_string(), error);
    });
    assert_eq!((steps_, held), (vec![], vec!["web FLT0505".to_owned()]));
    let (steps, held) = steps(&[], &[web()], |observed, _| {
        observed.units.remove("web.service");
    });
    assert_eq!((steps, held), (vec![], vec!["web FLT0506".to_owned()]));
}

#[tokio::test]
async fn a_unit_that_the_machine_has_from_elsewhere_is_not_found_to_be_the_fleets() {
    use std::os::unix::fs::MetadataExt as _;
    let root = tempfile::tempdir().expect("a folder");
    let me = std::fs::metadata(root.path()).expect("it is there");
    std::fs::create_dir(root.path().join("etc")).expect("made");
    for (list, id) in [("etc/passwd", me.uid()), ("etc/group", me.gid())] {
        std::fs::write(root.path().join(list), format!("root:x:{id}:\n")).expect("written");
    }
    let mut disk = Disk::new(root.path().to_owned());
    let unit = "/etc/containers/systemd/web.container";
    let named = "[Container]\nServiceName=web\nServiceName = nginx\nLabel=flotta.workload=shop\n\
                 [Service]\nServiceName=other\n";
    let config: Owner = "EdgeConfig/data".parse().expect("an owner");
    for (at, text, owner) in [
        (unit, named, None),
        (
            "/etc/containers/systemd/data.volume",
            "[Volume]\n",
            Some(config.clone()),
        ),
    ] {
        let mut file = file(at, text.as_bytes());
        file.belongs_to = owner;
        disk.write(&file, text.as_bytes()).expect("written");
    }
    let world = World::default();
    let has = |source: &str| {
        let definition = Definition {
            source: source.to_owned(),
            text: String::new(),
        };
        let loaded = &mut world.state().loaded;
        loaded.insert("nginx.service".to_owned(), definition);
    };
    has("/usr/lib/systemd/system/nginx.service");
    let owned = find_owned(&mut disk, &mut world.clone()).await;
    assert_eq!(owned.files.len(), 2);
    let units: Vec<_> = owned.units.keys().collect();
    assert_eq!(units, ["data-volume.service"]);
    let [of_unit, of_config] = [unit, "/etc/containers/systemd/data.volume"].map(path);
    assert_eq!(owned.files[&of_unit].as_str(), "shop");
    assert_eq!(owned.files[&of_config], config);
    assert_eq!(owned.units["data-volume.service"].workload, config);
    has(unit);
    let owned = find_owned(&mut disk, &mut world.clone()).await;
    assert_eq!(owned.units["nginx.service"].workload.as_str(), "shop");
    assert_eq!(owned.units.len(), 2);
}
