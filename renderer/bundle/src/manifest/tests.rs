use super::*;

fn file(path: &str) -> File {
    let path = path.parse().expect("a path");
    let content = Digest::of(b"x");
    File {
        path,
        mode: Mode::new(0o644),
        owner: "root".into(),
        group: "root".into(),
        digest: content,
        size: 1,
        kind: FileKind::Quadlet,
        belongs_to: None,
    }
}

fn manifest() -> Manifest {
    let web = "/etc/containers/systemd/web.container";
    Manifest {
        schema: SCHEMA,
        files: vec![file(web), file("/etc/containers/systemd/till.container")],
        units: vec![Unit {
            name: "web.service".into(),
            workload: Owner::workload("web"),
            wanted: Wanted::Active,
            restart_on: vec![web.parse().expect("a path")],
        }],
        images: vec![Image {
            reference: "registry.example/web:1".into(),
            digest: None,
            pull: Pull::Missing,
            workloads: vec![Owner::workload("web")],
        }],
        health: Vec::new(),
        settings: Settings::default(),
    }
}

fn rejected(change: impl FnOnce(&mut Manifest)) -> String {
    let mut bent = manifest();
    change(&mut bent);
    match Manifest::parse(&bent.encode()) {
        Err(ManifestError::Rule(why)) => why,
        Err(error) => error.to_string(),
        Ok(_) => "accepted".to_owned(),
    }
}

#[test]
fn encoding_is_canonical_and_reads_back() {
    let mut shuffled = manifest();
    shuffled.files.reverse();
    let bytes = manifest().encode();
    assert_eq!(bytes, shuffled.encode());
    let parsed = Manifest::parse(&bytes).expect("a manifest");
    assert_eq!(parsed.clone().encode(), bytes);
    insta::assert_snapshot!(String::from_utf8(bytes).expect("text"));
}

#[test]
fn rules_that_types_do_not_hold_are_checked() {
    let cases: [(&str, String); 9] = [
        (
            "is listed twice",
            rejected(|m| m.files.push(file("/etc/containers/systemd/web.container"))),
        ),
        (
            "only in case",
            rejected(|m| m.files.push(file("/etc/containers/systemd/WEB.container"))),
        ),
        (
            "both a file and a folder",
            rejected(|m| {
                m.files
                    .push(file("/etc/containers/systemd/web.container/x"));
            }),
        ),
        (
            "larger than",
            rejected(|m| m.files[0].size = MAX_FILE_BYTES + 1),
        ),
        ("account name", rejected(|m| m.files[0].owner = "0".into())),
        (
            "unit name",
            rejected(|m| m.units[0].name = "../x.service".into()),
        ),
        (
            "not a file of the manifest",
            rejected(|m| {
                m.units[0].restart_on =
                    vec!["/etc/containers/systemd/gone".parse().expect("a path")];
            }),
        ),
        (
            "disagree",
            rejected(|m| m.images[0].digest = Some(Digest::of(b"y"))),
        ),
        ("at least 1", rejected(|m| m.settings.heartbeat_seconds = 0)),
    ];
    for (expected, why) in cases {
        assert!(why.contains(expected), "{expected:?} not in {why:?}");
    }
}

#[test]
fn a_file_belongs_to_the_object_of_its_units_unless_it_says_otherwise() {
    let object = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        let bytes = manifest.encode();
        let manifest = Manifest::parse(&bytes).expect("a manifest");
        assert_eq!(manifest.clone().encode(), bytes);
        let mut files = manifest.files.iter();
        let file = files.find(|file| file.path.file_name() == "web.container");
        (
            manifest.schema,
            file.expect("the file").object().to_string(),
        )
    };
    let net = || "EdgeConfig/net".parse::<Owner>().expect("an owner");
    let say = |manifest: &mut Manifest, owner: Owner| manifest.files[0].belongs_to = Some(owner);
    let more = |manifest: &mut Manifest, owner: Owner| {
        let mut unit = manifest.units[0].clone();
        (unit.name, unit.workload) = ("more.service".to_owned(), owner);
        manifest.units.push(unit);
    };
    assert_eq!(object(&|_| ()), (1, "web".to_owned()));
    assert_eq!(
        object(&|m| say(m, Owner::workload("web"))),
        (1, "web".to_owned())
    );
    assert_eq!(object(&|m| say(m, net())), (3, "EdgeConfig/net".to_owned()));
    assert_eq!(
        object(&|m| say(m, Owner::device().clone())),
        (3, "EdgeDevice".to_owned())
    );
    // two units of one object imply the owner, two units of different objects do not
    assert_eq!(
        object(&|m| more(m, Owner::workload("web"))),
        (1, "web".to_owned())
    );
    assert_eq!(
        object(&|m| more(m, Owner::workload("till"))),
        (1, "EdgeDevice".to_owned())
    );
    assert_eq!(object(&|m| more(m, net())), (3, "EdgeDevice".to_owned()));
    // the workload is named if older agents cannot read the manifest anyway
    let unit = |m: &mut Manifest| m.units[0].restart_on.clear();
    let once = |m: &mut Manifest| m.units[0].wanted = Wanted::Once;
    let says = |m: &mut Manifest| say(m, Owner::workload("till"));
    assert_eq!(
        object(&|m| {
            unit(m);
            says(m);
        }),
        (1, "EdgeDevice".to_owned())
    );
    assert_eq!(
        object(&|m| {
            unit(m);
            says(m);
            once(m);
        }),
        (3, "till".to_owned())
    );
}

#[test]
fn an_owner_is_said_in_one_way() {
    let mut third = manifest();
    third.units[0].wanted = Wanted::Once;
    third.files[0].belongs_to = Some("EdgeConfig/net".parse().expect("an owner"));
    let good = String::from_utf8(third.encode()).expect("text");
    assert!(Manifest::parse(good.as_bytes()).is_ok());
    for (owner, why) in [
        ("web", "which its units imply"),
        ("EdgeConfig/", "is not a"),
        ("EdgeSet/a", "is not a"),
        ("", "is not a"),
    ] {
        let bent = good.replace("EdgeConfig/net", owner);
        let error = Manifest::parse(bent.as_bytes()).expect_err(owner);
        let error = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(error.contains(why), "{owner:?}: {error}");
    }
    let first = String::from_utf8(manifest().encode()).expect("text");
    let said = first.replace(
        "\"kind\":\"quadlet\"}]",
        "\"kind\":\"quadlet\",\"belongs_to\":\"till\"}]",
    );
    assert_ne!(said, first);
    let said = said.replace("\"schema\":1", "\"schema\":3");
    assert!(Manifest::parse(said.as_bytes()).is_err());
}

#[test]
fn malformed_and_hostile_json_is_refused() {
    let good = String::from_utf8(manifest().encode()).expect("text");
    let cases = [
        good.replace("\"schema\":1", &format!("\"schema\":{}", SCHEMA + 1)),
        good.replace("\"schema\":1", "\"schema\":1,\"schema\":1"),
        good.replace("\"schema\":1", "\"schema\":1,\"more\":1"),
        good.replace("\"0644\"", "\"4755\""),
        good.replace("\"0644\"", "\"644\""),
        good.replace("\"size\":1", "\"size\":1.5"),
        good.replace("\"size\":1", "\"size\":NaN"),
        good.replace("\"size\":1", "\"size\":-1"),
        "[".repeat(100_000),
        " ".repeat(MAX_BYTES + 1),
        String::new(),
    ];
    for (n, case) in cases.iter().enumerate() {
        assert_ne!(*case, good, "case {n} changes nothing");
        assert!(Manifest::parse(case.as_bytes()).is_err(), "case {n}");
    }
}

#[test]
fn a_newer_shape_is_called_newer_whatever_it_holds() {
    let newer = format!(r#"{{"schema":{},"everything":"else"}}"#, SCHEMA + 1);
    let error = Manifest::parse(newer.as_bytes()).expect_err("refused");
    assert!(
        error.to_string().contains("update flotta-agent first"),
        "{error}"
    );
}
