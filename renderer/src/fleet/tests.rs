use super::*;
use crate::check::{Batch, gather};

const FLEET: &str = "
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDeviceSet
metadata: {name: shops}
spec: {selector: {matchLabels: {role: till}}, heartbeat: {periodSeconds: 30}}
---
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDeviceSet
metadata: {name: north}
spec: {priority: 5, servers: ['https://north.example:8443']}
---
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata: {name: till-1, labels: {role: till, flotta/member-of: north}}
spec: {heartbeat: {periodSeconds: 10}}
---
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata: {name: scan}
spec:
  type: quadlet
  deviceSelector: {matchLabels: {role: till}}
  quadlet: {scan.container: \"[Container]\\nImage=registry.example/scan\\n\"}
---
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata: {name: alone}
spec:
  type: quadlet
  device: gone
  quadlet: {alone.container: \"[Container]\\nImage=registry.example/alone\\n\"}
";

#[test]
fn a_fleet_says_what_selects_what_and_where_values_come_from() {
    let file = Batch::of_file("fleet.yaml", FLEET.as_bytes());
    let (objects, findings) = gather([&file]);
    assert!(findings.is_empty(), "{findings:?}");
    let named = |name| DeviceName::new("default", name).expect("a name");
    let inventory = [InventoryDevice {
        device: named("till-2"),
        set: None,
        labels: Labels::from([("role".to_owned(), "till".to_owned())]),
    }];
    let fleet = Fleet::new(&objects, &inventory);

    let till = fleet.device(&named("till-1")).expect("a device");
    let sets = fleet.sets_of(till).map(|set| set.name);
    assert_eq!(sets.collect::<Vec<_>>(), ["shops", "north"]);
    let workloads = fleet.workloads_of(till).map(|workload| workload.name);
    assert_eq!(workloads.collect::<Vec<_>>(), ["scan"]);
    let merged = fleet.merged(till);
    let origin = |pointer: &str| merged.origins[pointer].to_string();
    assert_eq!(origin("/heartbeat/periodSeconds"), "fleet.yaml:15:35");
    assert_eq!(origin("/servers"), "fleet.yaml:10:30");

    assert!(fleet.device(&named("gone")).is_none());
    let [alone, scan] = fleet.workloads() else {
        unreachable!("two workloads")
    };
    let devices = |workload| -> Vec<_> {
        let devices = fleet.devices_of(workload);
        devices.map(|device| device.name.name()).collect()
    };
    assert_eq!(devices(alone), [""; 0]);
    assert_eq!(devices(scan), ["till-1", "till-2"]);
    let nowhere = fleet
        .findings()
        .find(|finding| finding.code == flotta_bundle::code::MATCHES_NOTHING);
    assert_eq!(
        nowhere.expect("a finding").place.to_string(),
        "fleet.yaml:30:11"
    );

    let mut known = Known::default();
    let of = |name| fleet.device(&named(name)).expect("a device");
    let [one, two] = ["till-1", "till-2"].map(|name| fleet.contents(of(name), &mut known));
    assert_eq!(
        (
            one.settings.heartbeat_seconds,
            two.settings.heartbeat_seconds
        ),
        (10, 30)
    );
    assert_eq!(fleet.parts(&one).len(), 1);
}
