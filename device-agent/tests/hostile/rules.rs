//! Signed manifests that break a rule.

use flotta_bundle::code;
use flotta_bundle::manifest::{MAX_BYTES, MAX_UNITS};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::fleet::{Bundle, file, manifest};
use crate::{Case, case};

/// Adds a file at this path to the manifest.
fn path(bench: &mut Bench, path: &'static str) {
    more(bench, &[path]);
}

/// The same where only the third schema has files.
pub fn elsewhere(bench: &mut Bench, path: &str) {
    bench.offer_manifest(|bundle, manifest| {
        let file = file(bundle, path, b"x", "data");
        manifest["schema"] = 3.into();
        manifest["files"].as_array_mut().expect("a list").push(file);
        let files = manifest["files"].as_array_mut().expect("a list");
        files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    });
}

fn twins(bench: &mut Bench, first: &'static str, second: &'static str) {
    more(bench, &[first, second]);
}

/// Adds files at these paths; `files` stays sorted.
fn more(bench: &mut Bench, paths: &[&str]) {
    bench.offer_manifest(|bundle, manifest| {
        for path in paths {
            let file = file(bundle, path, b"x", "data");
            manifest["files"].as_array_mut().expect("a list").push(file);
        }
        let files = manifest["files"].as_array_mut().expect("a list");
        files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    });
}

/// Offers a good manifest with one piece of its text replaced.
fn text(bench: &mut Bench, from: &str, to: &str) {
    let mut bundle = Bundle::default();
    let good = manifest(&mut bundle, 1_000).to_string();
    assert!(good.contains(from), "{from} in {good}");
    bench.offer_text(bundle, &good.replacen(from, to, 1));
}

pub fn unit(name: &str) -> Value {
    json!({"name": name, "workload": "web", "wanted": "active", "restart_on": []})
}

const RULES: &[Case] = &[
    case(
        "a path outside, in a manifest that older agents read",
        code::MANIFEST,
        "its schema is 1, but its content needs 3",
        |bench| {
            path(bench, "/etc/cron.d/root");
        },
    ),
    case(
        "a path that no policy allows here",
        code::PATH_FORBIDDEN,
        "/etc/cron.d/root is forbidden on this device: its policy allows no folder",
        |bench| {
            elsewhere(bench, "/etc/cron.d/root");
        },
    ),
    case(
        "a path that no policy can allow",
        code::PATH_FORBIDDEN,
        "/etc/shadow is forbidden on this device: it is a database of accounts",
        |bench| {
            elsewhere(bench, "/etc/shadow");
        },
    ),
    case(
        "a drop-in of the agent's own unit",
        code::PATH_FORBIDDEN,
        "10.conf is forbidden on this device: it is Flotta's own, whatever a policy says",
        |bench| {
            elsewhere(bench, "/etc/systemd/system/flotta-agent.service.d/10.conf");
        },
    ),
    case(
        "a drop-in of every unit whose name begins as the agent's does",
        code::PATH_FORBIDDEN,
        "10.conf is forbidden on this device: it is Flotta's own",
        |bench| {
            elsewhere(bench, "/etc/systemd/system/flotta-.service.d/10.conf");
        },
    ),
    case(
        "the agent's own identity",
        code::PATH_FORBIDDEN,
        "key.pem is forbidden on this device: it is Flotta's own",
        |bench| {
            elsewhere(bench, "/var/lib/flotta-agent/identity/key.pem");
        },
    ),
    case(
        "the agent's own policy",
        code::PATH_FORBIDDEN,
        "/etc/flotta/policy.toml is forbidden",
        |bench| {
            elsewhere(bench, "/etc/flotta/policy.toml");
        },
    ),
    case(
        "a path that climbs",
        code::MANIFEST,
        "a `.` or `..` component",
        |bench| {
            path(bench, "/etc/containers/systemd/../../shadow");
        },
    ),
    case(
        "a relative path",
        code::MANIFEST,
        "refused: not absolute",
        |bench| {
            path(bench, "etc/containers/systemd/web.container");
        },
    ),
    case(
        "a path with a NUL",
        code::MANIFEST,
        "a character that is not printable ASCII",
        |bench| {
            path(bench, "/etc/containers/systemd/web\0.container");
        },
    ),
    case(
        "case twins",
        code::MANIFEST,
        "differs from another only in case",
        |bench| {
            twins(
                bench,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/A",
            );
        },
    ),
    case(
        "Unicode twins",
        code::MANIFEST,
        "a character that is not printable ASCII",
        |bench| {
            let (composed, apart) = (
                "/etc/flotta/workloads/web/\u{e9}",
                "/etc/flotta/workloads/web/e\u{301}",
            );
            twins(bench, composed, apart);
        },
    ),
    case(
        "one path twice",
        code::MANIFEST,
        "files are not sorted, or",
        |bench| {
            twins(
                bench,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/a",
            );
        },
    ),
    case(
        "a file and a folder of one name",
        code::MANIFEST,
        "is both a file and a folder",
        |bench| {
            twins(
                bench,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/a/b",
            );
        },
    ),
    case(
        "a file and a folder whose names fold to one",
        code::MANIFEST,
        "is both a file and a folder",
        |bench| {
            twins(
                bench,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/A/b",
            );
        },
    ),
    case("a key twice", code::MANIFEST, "duplicate field", |bench| {
        text(bench, "\"schema\":1", "\"schema\":1,\"schema\":1");
    }),
    case(
        "a key twice, further in",
        code::MANIFEST,
        "duplicate field",
        |bench| {
            text(
                bench,
                "\"mode\":\"0644\"",
                "\"mode\":\"0644\",\"mode\":\"0777\"",
            );
        },
    ),
    case("NaN", code::MANIFEST, "expected value", |bench| {
        text(
            bench,
            "\"heartbeat_seconds\":60",
            "\"heartbeat_seconds\":NaN",
        );
    }),
    case(
        "a number without end",
        code::MANIFEST,
        "number out of range",
        |bench| {
            text(
                bench,
                "\"heartbeat_seconds\":60",
                "\"heartbeat_seconds\":1e999",
            );
        },
    ),
    case(
        "a number with a fraction",
        code::MANIFEST,
        "floating point `60.0`",
        |bench| {
            text(
                bench,
                "\"heartbeat_seconds\":60",
                "\"heartbeat_seconds\":60.0",
            );
        },
    ),
    case(
        "a heartbeat of nothing",
        code::MANIFEST,
        "heartbeat_seconds must be at least 1",
        |bench| {
            text(bench, "\"heartbeat_seconds\":60", "\"heartbeat_seconds\":0");
        },
    ),
    case(
        "a million lists, one in the other",
        code::MANIFEST,
        "expected `,` or `]`",
        |bench| {
            let deep = "[".repeat(1_000_000);
            text(bench, "\"files\":[", &format!("\"files\":{deep}["));
        },
    ),
    case(
        "a million lists in what nobody reads",
        code::MANIFEST,
        "unknown field `x`",
        |bench| {
            let (open, close) = ("[".repeat(1_000_000), "]".repeat(1_000_000));
            text(
                bench,
                "\"schema\":1",
                &format!("\"schema\":1,\"x\":{open}{close}"),
            );
        },
    ),
    case(
        "an unknown key",
        code::MANIFEST,
        "unknown field `tasks`",
        |bench| {
            text(bench, "\"schema\":1", "\"schema\":1,\"tasks\":[]");
        },
    ),
    case(
        "a later shape",
        code::MANIFEST,
        "manifest has schema 99",
        |bench| {
            text(bench, "\"schema\":1", "\"schema\":99");
        },
    ),
    case(
        "text after the end",
        code::MANIFEST,
        "trailing characters",
        |bench| {
            let mut bundle = Bundle::default();
            let good = manifest(&mut bundle, 1_000).to_string();
            bench.offer_text(bundle, &format!("{good}{{}}"));
        },
    ),
    case(
        "bytes that are no text",
        code::MANIFEST,
        "expected value",
        |bench| {
            let bundle = Bundle::default();
            bench.offer_text(bundle, "\u{0}\u{fffd}");
        },
    ),
    case(
        "a set-id bit",
        code::MANIFEST,
        "mode must be four octal digits",
        |bench| {
            text(bench, "\"0644\"", "\"4755\"");
        },
    ),
    case(
        "an owner that is an option",
        code::MANIFEST,
        "is not an account name",
        |bench| {
            text(bench, "\"owner\":\"root\"", "\"owner\":\"-root\"");
        },
    ),
    case(
        "an owner longer than a report, and longer still when it is quoted",
        code::MANIFEST,
        "breaks a rule: ",
        |bench| {
            let long = "\u{7f}".repeat(3 << 20);
            text(
                bench,
                "\"owner\":\"root\"",
                &format!("\"owner\":\"{long}\""),
            );
        },
    ),
    case(
        "a unit that is a path",
        code::MANIFEST,
        "is not a unit name",
        |bench| {
            text(
                bench,
                "\"name\":\"web.service\"",
                "\"name\":\"../web.service\"",
            );
        },
    ),
    case(
        "a unit that restarts on a file of the host",
        code::MANIFEST,
        "which is not a file of the manifest",
        |bench| {
            text(
                bench,
                "\"restart_on\":[",
                "\"restart_on\":[\"/etc/containers/systemd/host.container\",",
            );
        },
    ),
    case(
        "an image that is an option",
        code::MANIFEST,
        "is not an image reference",
        |bench| {
            text(
                bench,
                "\"reference\":\"registry",
                "\"reference\":\"--registry",
            );
        },
    ),
    case(
        "a file larger than any may be",
        code::MANIFEST,
        "is larger than 16777216 bytes",
        |bench| {
            bench
                .offer_manifest(|_, manifest| manifest["files"][0]["size"] = (17_u32 << 20).into());
        },
    ),
    case(
        "a file of less than no bytes",
        code::MANIFEST,
        "integer `-1`",
        |bench| {
            bench.offer_manifest(|_, manifest| manifest["files"][0]["size"] = (-1).into());
        },
    ),
    case(
        "a file that is longer than it says",
        code::NOT_FLOTTA,
        "sent more than",
        |bench| {
            bench.offer_manifest(|_, manifest| manifest["files"][1]["size"] = 3.into());
        },
    ),
    case(
        "more units than any device has",
        code::MANIFEST,
        "2001 units",
        |bench| {
            bench.offer_manifest(|_, manifest| {
                let names = (0..=MAX_UNITS).map(|n| format!("u{n:05}.service"));
                manifest["units"] = names.map(|name| unit(&name)).collect();
            });
        },
    ),
    case(
        "a manifest longer than any may be",
        code::NOT_FLOTTA,
        "sent more than",
        |bench| {
            let long = " ".repeat(MAX_BYTES);
            text(bench, "{", &format!("{{{long}"));
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn manifests_that_break_a_rule_are_refused_though_they_are_signed() {
    crate::run("manifests", RULES).await;
}
