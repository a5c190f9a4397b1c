//! The most common screens, from fixed answers at a fixed time.

mod formats;

use std::path::PathBuf;

use flotta_bundle::{Problem, code};
use flotta_reconciler::admin::request::FleetFacts;
use flotta_reconciler::admin::resource::{
    Device, EventObject, ReleaseObject, Request, ServerStatus, Workload,
};
use flotta_reconciler::publish::Notice;
use flotta_reconciler::serve::About;
use flotta_reconciler::source::{Reader, SourceFile, Tree};
use flotta_renderer::{Options, render};
use insta::assert_snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::resources::{Columns, Row, head, row};
use super::table::Table;
use super::{describe, findings, start};

const KEY: &str = "0c1d5e7f9a3b2c4d0c1d5e7f9a3b2c4d0c1d5e7f9a3b2c4d0c1d5e7f9a3b2c9a";

fn now() -> Timestamp {
    "2026-11-23T10:45:12Z".parse().unwrap()
}

fn object(kind: &str, name: &str, status: Value) -> Value {
    json!({
        "apiVersion": "management.project-flotta.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {},
        "status": status,
    })
}

fn workload(name: &str, state: &str, since: &str, message: &str) -> Value {
    json!({"name": name, "state": state, "since": since, "message": message,
        "restarts": u32::from(state == "Failed") * 3})
}

fn devices() -> Vec<Device> {
    let up = || {
        vec![
            workload("cam", "Running", "2026-11-23T05:30:00Z", ""),
            workload("till", "Running", "2026-11-23T05:30:00Z", ""),
        ]
    };
    let running = |release: u64| json!({"release": release, "manifest": "sha256:5b2e9d8c7a6f11aa", "commit": {"id": "77ab04c0ffee", "subject": "tills"}});
    let mut with = up();
    with.push(workload("web", "Running", "2026-11-23T10:43:00Z", ""));
    let mut pulling = up();
    pulling.push(workload("web", "Pulling", "2026-11-23T10:45:00Z", ""));
    let mut failed = up();
    failed.push(workload(
        "web",
        "Failed",
        "2026-11-23T10:41:00Z",
        "exited 1 after 2s",
    ));
    let wanted = json!({"release": 42, "manifest": "sha256:88f0c0ffee123456", "commit": {"id": "4f2c91a9e1d3c0", "subject": "web 2.4"}});
    [
        ("shop-17", json!({"state": "Ready", "sets": ["shops"], "lastSeen": "2026-11-23T10:45:08Z", "running": wanted, "wanted": wanted, "workloads": with})),
        ("shop-18", json!({"state": "Updating", "message": "pulling web (38 MiB of 112 MiB)", "sets": ["shops"], "lastSeen": "2026-11-23T10:45:11Z", "running": running(41), "wanted": wanted, "workloads": pulling})),
        ("shop-19", json!({"state": "Failed", "message": "web: exited 1 after 2s", "sets": ["shops", "base"], "lastSeen": "2026-11-23T10:45:03Z", "running": running(41), "wanted": wanted, "workloads": failed,
            "identity": {"fingerprint": KEY, "certificateExpires": "2027-02-21T10:00:00Z"},
            "hardware": {"model": "Dell Edge 3200", "architecture": "x86_64", "os": "Fedora IoT 43"},
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "WorkloadFailed", "message": "web exited 1 after 2s"},
                {"type": "Connected", "status": "True", "reason": "Reporting"},
                {"type": "InSync", "status": "True", "reason": "Applied"}]})),
        ("shop-20", json!({"state": "Offline", "message": "last seen 2026-11-20 09:12", "sets": ["shops"], "lastSeen": "2026-11-20T09:12:00Z", "running": running(40), "wanted": wanted, "workloads": with})),
        ("shop-21", json!({"state": "Pending", "message": "it has joined, and has not reported yet"})),
    ]
    .into_iter()
    .map(|(name, status)| serde_json::from_value(object("EdgeDevice", name, status)).unwrap())
    .collect()
}

fn events() -> Vec<EventObject> {
    [
        ("Applying", "release 42: 1 unit changed (web)", "Normal", "2026-11-23T10:41:00Z"),
        ("WorkloadFailed", "web: exited 1 after 2s", "Warning", "2026-11-23T10:41:05Z"),
    ]
    .into_iter()
    .map(|(reason, message, kind, time)| {
        let status = json!({"time": time, "type": kind, "reason": reason, "message": message, "object": "device/default/shop-19"});
        serde_json::from_value(object("Event", "1", status)).unwrap()
    })
    .collect()
}

fn table<T: Row>(objects: &[T], columns: Columns) -> String {
    let rows: Vec<_> = objects
        .iter()
        .map(|object| row(object, columns, now()))
        .collect();
    Table::new(head::<T>(columns), false).start(&rows)
}

#[test]
fn get_devices() {
    assert_snapshot!(table(&devices(), Columns::default()));
}

#[test]
fn get_devices_of_all_namespaces_wide() {
    let columns = Columns {
        namespace: true,
        wide: true,
    };
    assert_snapshot!(table(&devices()[1..3], columns));
}

#[test]
fn get_requests() {
    let mut request = object(
        "EdgeDeviceSignedRequest",
        "shop-17",
        json!({
            "state": "Pending", "fingerprint": KEY, "from": "198.51.100.7",
            "hardware": {"model": "Dell Edge 3200"},
        }),
    );
    request["metadata"]["creationTimestamp"] = json!("2026-11-23T10:44:31Z");
    let request: Request = serde_json::from_value(request).unwrap();
    assert_snapshot!(table(&[request], Columns::default()));
}

#[test]
fn get_releases() {
    let release = |name: &str,
                   state: &str,
                   commit: &str,
                   subject: &str,
                   message: &str,
                   time: &str|
     -> ReleaseObject {
        let status = json!({"state": state, "message": message, "source": "https://git.example/fleet.git",
            "commit": {"id": commit, "subject": subject}, "issued": time, "devices": 40, "workloads": 12, "manifests": 10});
        serde_json::from_value(object("Release", name, status)).unwrap()
    };
    let releases = [
        release(
            "held-45",
            "Held",
            "77ab01caa",
            "tidy up",
            "would remove till from 40 of 40 devices (limit 30 %)",
            "2026-11-23T10:45:00Z",
        ),
        release(
            "refused-44",
            "Refused",
            "9e1d3c0aa",
            "oops",
            "1 error (FLT0103 fleet/workloads/web.yaml:14)",
            "2026-11-23T10:44:00Z",
        ),
        release(
            "42",
            "InForce",
            "4f2c91aaa",
            "web 2.4",
            "",
            "2026-11-23T10:40:00Z",
        ),
        release(
            "41",
            "Superseded",
            "77ab04caa",
            "tills",
            "",
            "2026-11-02T08:00:00Z",
        ),
    ];
    assert_snapshot!(table(&releases, Columns::default()));
}

fn held() -> ReleaseObject {
    let names =
        |count: u32| -> Vec<_> { (1..=count).map(|n| format!("default/shop-{n}")).collect() };
    let status = json!({"state": "Held", "message": "would remove till from 40 of 40 devices (limit 30 %)",
        "source": "https://git.example/fleet.git", "commit": {"id": "77ab01caa", "subject": "tidy up"},
        "issued": "2026-11-23T10:45:00Z", "devices": 40, "held": true,
        "removes": [{"workload": "default/till", "of": 40, "devices": {"count": 40, "names": names(40)}},
            {"workload": "default/cam", "of": 4, "stops": true, "devices": {"count": 2, "names": names(2)}}],
        "empties": {"count": 1, "names": ["default/shop-9"]},
        "notes": ["the source was reset from 4f2c91a to 77ab01c"]});
    serde_json::from_value(object("Release", "held-45", status)).unwrap()
}

#[test]
fn describe_release() {
    let refused = json!({"state": "Refused", "message": "2 errors (FLT0103 web.yaml:14:13, FLT0101 b.yaml:1:1)",
        "source": "directory", "commit": {"id": "9e1d3c0aa", "subject": "oops"}, "issued": "2026-11-23T10:44:00Z",
        "errors": [
            {"code": "FLT0103", "place": "web.yaml:14:13", "message": "unknown field `hostport`", "help": "did you mean `hostPort`?"},
            {"code": "FLT0101", "place": "b.yaml:1:1", "message": "did not find expected node", "help": "fix the syntax"}],
        "moreErrors": 7});
    let refused: ReleaseObject =
        serde_json::from_value(object("Release", "refused-44", refused)).unwrap();
    let in_force = json!({"state": "InForce", "source": "directory", "commit": {"id": "4f2c91aaa", "subject": "web 2.4"},
        "issued": "2026-11-23T10:40:00Z", "expires": "2027-02-21T10:40:00Z", "devices": 40, "workloads": 12, "manifests": 10,
        "allowedBy": "alice", "letGo": {"count": 1, "names": ["default/shop-9"]}});
    let in_force: ReleaseObject =
        serde_json::from_value(object("Release", "42", in_force)).unwrap();
    let all = [held(), refused, in_force];
    let texts = all
        .iter()
        .map(|release| describe::release(release, now(), false));
    assert_snapshot!(texts.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_is_wrong_with_the_server() {
    let mut status: ServerStatus = serde_json::from_value(json!({
        "source": {"label": "main@77ab01c", "commit": "77ab01caa", "looked": "2026-11-23T10:45:00Z", "intervalSeconds": 30,
            "verdict": {"state": "InForce", "since": "2026-11-23T10:40:00Z"}},
        "inForce": {"sequence": 47}}))
    .unwrap();
    assert_eq!(super::status::lines(&status, now()), Vec::<String>::new());
    let mut said = Vec::new();
    let later = now() + jiff::SignedDuration::from_hours(2);
    said.extend(super::status::lines(&status, later));
    status.source.verdict =
        serde_json::from_value(json!({"state": "Held", "since": "2026-11-23T10:45:00Z",
        "message": "would remove till from 40 of 40 devices (limit 30 %)"}))
        .unwrap();
    said.extend(super::status::lines(&status, now()));
    status.source.verdict =
        serde_json::from_value(json!({"state": "Refused", "since": "2026-11-23T10:42:00Z",
        "message": "1 error (FLT0103 web.yaml:14:13)"}))
        .unwrap();
    status.source.failure =
        serde_json::from_value(json!({"source": true, "since": "2026-11-23T10:43:00Z",
        "message": "git ls-remote: fatal: repository 'https://git.example/fleet.git/' not found"}))
        .unwrap();
    status.warnings = serde_json::from_value(json!([{"since": "2026-11-23T10:00:00Z",
        "message": "the clock is ten days ahead of the devices"},
        {"since": "2026-11-23T14:00:00Z", "message": "noted before the clock was set back"}]))
    .unwrap();
    said.extend(super::status::lines(&status, now()));
    assert_snapshot!(said.join("\n"));
}

#[test]
fn get_workloads_and_events() {
    let status =
        json!({"running": 3, "failed": 1, "devices": 5, "message": "shop-19: exited 1 after 2s"});
    let workload: Workload = serde_json::from_value(object("EdgeWorkload", "web", status)).unwrap();
    assert_snapshot!(
        table(&[workload], Columns::default()) + "\n" + &table(&events(), Columns::default())
    );
}

#[test]
fn describe_device() {
    assert_snapshot!(describe::device(&devices()[2], &events(), now(), false));
}

#[test]
fn describe_workload() {
    let on = |device: &str, mut workload: Value| {
        workload["device"] = json!(device);
        workload
    };
    let status = json!({"running": 1, "failed": 1, "devices": 2, "on": [
        on("shop-17", workload("web", "Running", "2026-11-23T10:43:00Z", "")),
        on("shop-19", workload("web", "Failed", "2026-11-23T10:41:00Z", "exited 1 after 2s")),
    ]});
    let workload = serde_json::from_value(object("EdgeWorkload", "web", status)).unwrap();
    assert_snapshot!(describe::workload(&workload, now(), false));
}

fn about(first_start: bool) -> About {
    About {
        version: "0.1.0",
        first_start,
        data: PathBuf::from("/var/lib/flotta"),
        facts: FleetFacts {
            fleet: "shops".to_owned(),
            trust_root: "9f3c0a1b2c3d4e5f9f3c0a1b2c3d4e5f9f3c0a1b2c3d4e5f9f3c0a1b2c3d4ee1"
                .to_owned(),
            trust_root_version: 1,
            device_ca: "77ab0a1b2c3d4e5f77ab0a1b2c3d4e5f77ab0a1b2c3d4e5f77ab0a1b2c3d4e04"
                .to_owned(),
            device_ca_expires: "2036-11-20T10:00:00Z".parse().unwrap(),
            server: "https://edge.example.com:7443".to_owned(),
            server_expires: "2027-02-21T10:00:00Z".parse().unwrap(),
            data: "/var/lib/flotta".to_owned(),
            waiting: 0,
            clock: None,
        },
        names: vec!["edge.example.com".to_owned()],
        listen: "0.0.0.0:7443".parse().unwrap(),
        admin: PathBuf::from("/run/flotta/admin.sock"),
        hooks: None,
        clock: None,
    }
}

#[test]
fn a_clock_in_doubt_is_said_before_anything_is_served() {
    let why = "the server's clock is in doubt: it says 2028-11-27T12:00:00Z";
    let about = About {
        clock: Some(Problem::new(code::SERVER_CLOCK, why)),
        ..about(false)
    };
    let screen = start::screen(&about);
    let lines: Vec<_> = screen.lines().map(str::trim).collect();
    let said = lines
        .iter()
        .position(|line| line.starts_with("clock"))
        .unwrap();
    assert_eq!(lines[said], format!("clock        FLT0611: {why}"));
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("to do") && last.contains("flotta clock accept"),
        "{screen}"
    );
}

#[test]
fn first_start() {
    let published = Notice::Published {
        label: "main@4f2c91a".to_owned(),
        counts: flotta_renderer::Counts {
            files: 12,
            devices: 40,
            workloads: 12,
            manifests: 10,
        },
        above: None,
        sequence: 1,
        took: std::time::Duration::from_millis(31),
        manifests: 10,
        held: 0,
        left: 0,
    };
    let about = about(true);
    let ready = start::ready(&about);
    assert_snapshot!(format!("{}{published}\n{ready}\n", start::screen(&about)));
}

#[test]
fn later_start() {
    let unchanged = Notice::Unchanged {
        label: "main@4f2c91a".to_owned(),
        sequence: 42,
    };
    let about = About {
        data: PathBuf::from("/srv/fleet"),
        admin: PathBuf::from("/srv/fleet/admin.sock"),
        hooks: Some("127.0.0.1:7080".parse().unwrap()),
        ..about(false)
    };
    let ready = start::ready(&about);
    assert_snapshot!(format!("{}{unchanged}\n{ready}\n", start::screen(&about)));
}

#[test]
fn refused_and_failed() {
    let refused = Notice::Refused {
        label: "main@9e1d3c0".to_owned(),
        refusal: "1 error (FLT0103 fleet/workloads/web.yaml:14)".to_owned(),
        in_force: Some(42),
    };
    let failed = Notice::Failed {
        source: true,
        message: "git ls-remote: fatal: unable to access 'https://git.example/fleet.git/'"
            .to_owned(),
        in_force: None,
    };
    let held = Notice::Held {
        label: "main@77ab01c".to_owned(),
        counts: flotta_renderer::Counts {
            files: 12,
            devices: 40,
            ..flotta_renderer::Counts::default()
        },
        reason: "would remove till from 40 of 40 devices (limit 30 %)".to_owned(),
        commit: "77ab01c".to_owned(),
    };
    let recovered = Notice::Recovered;
    assert_snapshot!(format!("{refused}\n{failed}\n{recovered}\n{held}\n"));
}

#[test]
fn lint_of_a_bad_commit() {
    let workload = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata:
  name: web
spec:
  deviceSelector:
    matchLabels: {app: shop}
  type: pod
  pod:
    spec:
      containers:
        - name: web
          image: registry.example/web:2.4
          ports:
            - containerPort: 80
              hostport: 8080
";
    let tree = Tree {
        files: vec![SourceFile {
            path: "workloads/web.yaml".to_owned(),
            content: workload.as_bytes().to_vec(),
        }],
        ..Tree::default()
    };
    let rendered = render(&Reader::default().read(&tree), &[], &Options::default());
    assert_snapshot!(findings::human(
        &rendered.findings,
        &tree,
        &rendered.counts,
        "fleet/",
        false
    ));
}

#[test]
fn yaml_can_be_read_back() {
    for device in devices() {
        let text = super::yaml(&device).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, serde_json::to_value(&device).unwrap(), "{text}");
    }
    assert_snapshot!(super::yaml(&devices()[2]).unwrap());
}

#[test]
fn a_check_says_what_is_wrong_first_and_what_to_do() {
    let fact = |name: &str, grade: &str, message: &str, code: &str, help: &str| json!({"name": name, "grade": grade, "message": message, "code": code, "help": help});
    let well = [
        fact("source", "ok", "followed to commit 4f2c91a", "", ""),
        fact("disk", "ok", "62 % free (63488 MiB)", "", ""),
    ];
    let wrong = [
        fact(
            "source",
            "warning",
            "git fetch: no such host",
            "FLT0601",
            "check URL, branch and credentials",
        ),
        fact(
            "disk",
            "critical",
            "0 % free (12 MiB)",
            "FLT0622",
            "make space on it",
        ),
        fact("devices", "ok", "40: 39 connected, 1 offline", "", ""),
    ];
    let screen = |grade: &str, facts: &[Value]| {
        let check = json!({"version": "0.1.0", "grade": grade, "facts": facts});
        super::check::screen(&serde_json::from_value(check).unwrap(), false)
    };
    assert_snapshot!(screen("ok", &well) + "\n" + &screen("critical", &wrong));
}
