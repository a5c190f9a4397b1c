//! Probes on a real device: what the agent checks, and what follows from it.

use serde_json::Value;

use crate::device::{Device, wait};
use crate::site::{HELLO, Site, device};

/// A workload that serves a file of the device, which may exist or not: 200 or 500. `more` are its probes.
fn workload(name: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata:\n  name: {name}\nspec:\n  type: pod\n  \
         deviceSelector: {{}}\n  pod:\n    spec:\n      terminationGracePeriodSeconds: 5\n      containers:\n        - name: {name}\n          \
         image: {HELLO}\n          args: [\"{port}\", /site/page]\n          ports: [{{name: http, containerPort: {port}}}]\n          \
         volumeMounts: [{{name: site, mountPath: /site}}]\n{more}      volumes:\n        - {{name: site, hostPath: {{path: /srv/{name}}}}}\n"
    )
}

fn probe(kind: &str, what: &str) -> String {
    format!("          {kind}: {{{what}, periodSeconds: 1, failureThreshold: 2}}\n")
}

fn page(device: &Device, name: &str, is_there: bool) {
    let path = device.path(&format!("/srv/{name}/page"));
    if is_there {
        std::fs::write(path, "a page").expect("a file");
    } else {
        std::fs::remove_file(path).expect("a file");
    }
}

fn healthy(status: &Value) -> Value {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut all = all.into_iter();
    all.find(|condition| condition["type"] == "Healthy")
        .unwrap_or_default()
}

#[test]
fn probes_are_made_by_the_agent_and_mean_what_kubernetes_means() {
    let http = "httpGet: {path: /healthz, port: http}";
    let live = probe("livenessProbe", http) + &probe("startupProbe", http);
    let ready = probe("readinessProbe", http) + &probe("livenessProbe", "tcpSocket: {port: http}");
    // a pod of two containers, with the pod's address; and one in the host's network
    let duo = workload("duo", 8083, &probe("readinessProbe", http)).replace(
        "      volumes:",
        &format!("        - {{name: other, image: {HELLO}, args: [\"9999\"]}}\n      volumes:"),
    );
    let host = workload("host", 8084, &probe("readinessProbe", http)).replace(
        "    spec:\n      term",
        "    spec:\n      hostNetwork: true\n      term",
    );
    let site = Site::start(&[
        ("device.yaml", &device("probed")),
        ("live.yaml", &workload("live", 8081, &live)),
        ("ready.yaml", &workload("ready", 8082, &ready)),
        ("duo.yaml", &duo),
        ("host.yaml", &host),
    ]);
    let probed = Site::install("probed");
    for name in ["live", "ready", "duo", "host"] {
        probed.write(&format!("/srv/{name}/page"), "a page");
    }
    probed.write("/etc/flotta/join", &site.token(&["probed"]));
    probed.boot();
    site.in_sync("probed");
    let first = probed.containers();
    assert_eq!(healthy(&site.status("probed"))["status"], "True");

    // Readiness: it is reported, and nothing is stopped.
    for name in ["ready", "duo", "host"] {
        page(&probed, name, false);
        let why = site.problem("probed", name, "FLT0531");
        assert!(why.ends_with("/healthz: answered 500"), "{why}");
        let said = wait("the device is not healthy", || {
            let condition = healthy(&site.status("probed"));
            let is = condition["status"] == "False" && condition["reason"] == "NotReady";
            is.then(|| condition.clone())
                .ok_or_else(|| condition.to_string())
        });
        let message = said["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with(&format!("{name}: not ready: GET http://")),
            "{message}"
        );
        let described = site.flotta(&["describe", "device", "probed"]);
        assert!(described.contains("NotReady"), "{described}");
        page(&probed, name, true);
        wait("the device is healthy again", || {
            let status = site.status("probed");
            let is = healthy(&status)["status"] == "True" && status["state"] == "Ready";
            is.then_some(()).ok_or_else(|| status.to_string())
        });
    }
    assert_eq!(probed.containers(), first, "all runs on as it was");

    // A missing command is a failed check; then the command exists, and the check passes.
    let command = probe(
        "readinessProbe",
        "exec: {command: [/site/hello, exit, \"0\"]}",
    );
    probed.write("/srv/exec/page", "a page");
    site.commit(
        "a command",
        &[("exec.yaml", &workload("exec", 8085, &command))],
    );
    let why = site.problem("probed", "exec", "FLT0531");
    assert_eq!(why, "not ready: `/site/hello exit 0`: exited 127");
    let copy = "cp \"$(podman mount live)\"/hello /srv/exec/hello";
    probed.exec(&["sh", "-c", copy]);
    site.in_sync("probed");
    let first = probed.containers();

    // After a restart of the agent, a healthy container keeps running.
    probed.exec(&["systemctl", "restart", "flotta-agent"]);
    site.in_sync("probed");
    assert_eq!(probed.containers(), first);

    // Liveness: systemd starts new containers until there is a page again.
    page(&probed, "live", false);
    let said = site.event(&[
        "Unhealthy",
        "live.service: ",
        " check failed: ",
        "answered 500",
    ]);
    assert!(said.contains("FLT0532"), "{said}");
    wait("there is another container", || {
        let now = probed.containers();
        let is_new = now
            .get("live")
            .is_some_and(|id| Some(id) != first.get("live"));
        is_new
            .then_some(())
            .ok_or_else(|| format!("{now:?}\n{}", probed.log()))
    });
    site.problem("probed", "live", "FLT0532");
    page(&probed, "live", true);
    site.in_sync("probed");
    let restarts = probed.exec(&["systemctl", "show", "-P", "NRestarts", "live.service"]);
    assert_ne!(restarts, "0", "systemd did it");
    let others = |mut all: std::collections::BTreeMap<String, String>| {
        all.remove("live");
        all
    };
    assert_eq!(others(probed.containers()), others(first));
}
