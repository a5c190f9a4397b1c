//! Each case is a YAML file. Its snapshot has the findings about it, and what it compiles to.

use std::fmt::Write as _;

use flotta_bundle::DevicePath;
use flotta_bundle::manifest::Manifest;
use flotta_renderer::{Batch, Finding, Input, Options, Scope, Severity, render};

#[test]
fn cases() {
    insta::glob!("cases/*.yaml", |path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        let content = std::fs::read(path).expect("a readable case");
        let input = Input::from_iter([Batch::of_file(&name, &content)]);
        let rendered = render(&input, &[], &Options::default());
        let mut text = String::new();
        for finding in &rendered.findings {
            let _ = writeln!(
                text,
                "{:?}[{}]: {}\n  --> {} +{}",
                finding.severity,
                finding.code.id,
                finding.message,
                finding.place,
                finding.place.span().2
            );
            if let Some(help) = &finding.help {
                let _ = writeln!(text, "  = help: {help}");
            }
            if !finding.devices().is_empty() {
                let _ = writeln!(
                    text,
                    "  = devices: {:?}",
                    finding
                        .devices()
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                );
            }
        }
        let reaches_further = |finding: &&Finding| !matches!(finding.scope, Scope::Devices(_));
        let errors = rendered
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error);
        let _ = writeln!(
            text,
            "refused {} held {:?}",
            errors.filter(reaches_further).count() > 0,
            rendered
                .held
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        );
        let mut shown = std::collections::BTreeSet::new();
        for (name, device) in &rendered.devices {
            let _ = writeln!(
                text,
                "== {name}: sets {:?} workloads {:?}",
                device.sets, device.workloads
            );
            if !shown.insert(device.manifest) {
                continue;
            }
            let manifest = Manifest::parse(&rendered.blobs[&device.manifest])
                .expect("a manifest within the rules");
            let _ = writeln!(text, "heartbeat {} s", manifest.settings.heartbeat_seconds);
            if !manifest.settings.servers.is_empty() {
                let servers = manifest.settings.servers.join(" ");
                let _ = writeln!(text, "schema {}, servers {servers}", manifest.schema);
            }
            for unit in manifest.units {
                let on: Vec<_> = unit.restart_on.iter().map(DevicePath::file_name).collect();
                let _ = writeln!(
                    text,
                    "unit {} {:?} restarts on {on:?}",
                    unit.name, unit.wanted
                );
            }
            for check in manifest.health {
                let check = serde_json::to_string(&check).expect("JSON");
                let _ = writeln!(text, "check {check}");
            }
            for file in manifest.files {
                let _ = writeln!(
                    text,
                    "-- {} {}\n{}",
                    file.path,
                    String::from(file.mode),
                    String::from_utf8_lossy(&rendered.blobs[&file.digest]).trim_end()
                );
            }
        }
        insta::assert_snapshot!(text);
    });
}
