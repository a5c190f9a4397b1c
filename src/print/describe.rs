//! `flotta describe`: everything about one object, the most important first.

use std::fmt::Write;

use flotta_reconciler::admin::resource::{
    Device, DeviceWorkload, EventObject, ReleaseObject, Resource, Running, Workload,
};
use flotta_reconciler::publish::details::Few;
use jiff::Timestamp;

use super::resources::{style, workload_state};
use super::table::{Cell, one_line};
use super::time::{age, ago};
use super::{fingerprint, paint};

/// Most events that are shown.
const EVENTS: usize = 10;

/// A device and its events.
pub(crate) fn device(
    device: &Device,
    events: &[EventObject],
    now: Timestamp,
    colours: bool,
) -> String {
    let status = &device.status;
    let mut text = paint(
        &device.metadata().full_name(),
        Some(super::Style::Strong),
        colours,
    );
    write(
        &mut text,
        format_args!(
            "    {}",
            paint(&status.state, style(&status.state), colours)
        ),
    );
    if !status.message.is_empty() {
        write(&mut text, format_args!("    {}", one_line(&status.message)));
    }
    text.push('\n');

    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            write(
                &mut text,
                format_args!("  {name:<9}  {}\n", one_line(&value)),
            );
        }
    };
    field("set", status.sets.join(", "));
    field("labels", labels(device));
    let identity = status.identity.as_ref().map(|identity| {
        let until = identity
            .certificate_expires
            .map(|until| format!("  certificate until {}", date(until)));
        fingerprint(&identity.fingerprint) + &until.unwrap_or_default()
    });
    field("identity", identity.unwrap_or_default());
    field(
        "running",
        status.running.as_ref().map(running).unwrap_or_default(),
    );
    field(
        "wanted",
        status.wanted.as_ref().map(running).unwrap_or_default(),
    );
    field("machine", machine(device));
    let seen = status.last_seen.map(|seen| ago(now, seen));
    field("seen", seen.unwrap_or_default());

    let conditions = status.conditions.iter().map(|condition| {
        vec![
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone().unwrap_or_default(),
            condition.message.clone().unwrap_or_default(),
        ]
    });
    section(&mut text, "Conditions", &conditions.collect::<Vec<_>>());
    let workloads = status
        .workloads
        .iter()
        .map(|workload| row(&workload.name, workload, now));
    section(&mut text, "Workloads", &workloads.collect::<Vec<_>>());
    section(&mut text, "Events", &event_rows(events, now));
    text
}

/// A workload on all its devices, those where it is not running first.
pub(crate) fn workload(workload: &Workload, now: Timestamp, colours: bool) -> String {
    let status = &workload.status;
    let mut text = paint(
        &workload.metadata().full_name(),
        Some(super::Style::Strong),
        colours,
    );
    write(
        &mut text,
        format_args!("    {} of {} running", status.running, status.devices),
    );
    if status.failed > 0 {
        write(&mut text, format_args!(", {} failed", status.failed));
    }
    text.push('\n');
    let mut on: Vec<_> = status.on.iter().collect();
    on.sort_by_key(|on| {
        (
            std::cmp::Reverse(on.workload.state == flotta_bundle::wire::WorkloadState::Failed),
            &on.device,
        )
    });
    let rows = on.iter().map(|on| row(&on.device, &on.workload, now));
    section(&mut text, "Devices", &rows.collect::<Vec<_>>());
    text
}

/// A release, or a commit that did not become one, with its removals and errors.
pub(crate) fn release(release: &ReleaseObject, now: Timestamp, colours: bool) -> String {
    let (status, name) = (&release.status, &release.metadata.name);
    let id = status.commit.id.trim_start_matches("sha256:");
    let short = id.get(..7).unwrap_or(id);
    let title = match name.parse::<u64>() {
        Ok(sequence) => format!("release {sequence}"),
        Err(_) => format!("commit {short}"),
    };
    let mut text = paint(&title, Some(super::Style::Strong), colours);
    let state = paint(&status.state, style(&status.state), colours);
    write(
        &mut text,
        format_args!("    {state}    {}\n", ago(now, status.issued)),
    );
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            write(
                &mut text,
                format_args!("  {name:<9}  {}\n", one_line(value)),
            );
        }
    };
    let details = &status.details;
    field(
        "commit",
        format!("{id}  {}", status.commit.subject).trim_end(),
    );
    field("source", &status.source);
    if status.devices > 0 {
        let (workloads, manifests) = (status.workloads, status.manifests);
        let mut devices = format!("{}", status.devices);
        if workloads > 0 {
            write(
                &mut devices,
                format_args!(", {workloads} workloads, {manifests} manifests"),
            );
        }
        field("devices", &devices);
    }
    field("message", &status.message);
    field("allowed", &details.allowed_by);
    for note in details.notes.iter().filter(|note| **note != status.message) {
        field("note", note);
    }
    let errors = details.errors.iter().map(|error| {
        let (code, place) = (error.code.clone(), error.place.clone());
        vec![code, place, error.message.clone(), error.help.clone()]
    });
    section(&mut text, "Errors", &errors.collect::<Vec<_>>());
    if details.more_errors > 0 {
        write(
            &mut text,
            format_args!("  and {} more\n", details.more_errors),
        );
    }
    let removes = details.removes.iter().map(|removal| {
        let count = format!("{} of {}", removal.devices.count, removal.of);
        let how = if removal.stops { "stops" } else { "" };
        vec![
            removal.workload.clone(),
            how.to_owned(),
            count,
            some(&removal.devices),
        ]
    });
    section(&mut text, "Takes away", &removes.collect::<Vec<_>>());
    for (title, devices) in [
        ("Leaves without a workload", &details.empties),
        ("Leave Git and keep what they run", &details.leaves_git),
        (
            "Left Git, and have nothing to run any more",
            &details.let_go,
        ),
    ] {
        if !devices.is_empty() {
            let rows = [vec![devices.count.to_string(), some(devices)]];
            section(&mut text, title, &rows);
        }
    }
    if status.state == "Held" {
        write(
            &mut text,
            format_args!(
                "let it through: flotta release allow {short}     or commit again what should stay\n"
            ),
        );
    }
    text
}

/// `default/shop-1, default/shop-2 and 38 more`.
fn some(devices: &Few) -> String {
    const SHOWN: usize = 20;
    let names = devices.names.iter().take(SHOWN).map(ToString::to_string);
    let names: Vec<_> = names.collect();
    let more = devices.count - names.len() as u64;
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn row(name: &str, workload: &DeviceWorkload, now: Timestamp) -> Vec<String> {
    let restarts = match workload.restarts {
        0 => String::new(),
        1 => "1 restart".to_owned(),
        many => format!("{many} restarts"),
    };
    vec![
        name.to_owned(),
        workload_state(workload.state).to_owned(),
        workload
            .since
            .map_or_else(String::new, |since| age(now, since)),
        restarts,
        if workload.code.is_empty() {
            workload.message.clone()
        } else {
            format!("{}: {}", workload.code, workload.message)
        },
    ]
}

fn event_rows(events: &[EventObject], now: Timestamp) -> Vec<Vec<String>> {
    events
        .iter()
        .rev()
        .take(EVENTS)
        .map(|event| {
            let status = &event.status;
            vec![
                age(now, status.time),
                status.reason.clone(),
                status.message.clone(),
            ]
        })
        .collect()
}

/// A heading and aligned rows; nothing without rows. Columns that are empty in all rows are left out.
fn section(text: &mut String, name: &str, rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let filled: Vec<usize> = (0..rows[0].len())
        .filter(|column| rows.iter().any(|row| !row[*column].is_empty()))
        .collect();
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            filled
                .iter()
                .map(|column| Cell::from(&row[*column]))
                .collect()
        })
        .collect();
    write(text, format_args!("{name}\n"));
    let mut table = super::table::Table::new(vec![""; filled.len()], false);
    for line in table.more(&cells).lines() {
        write(text, format_args!("  {line}\n"));
    }
}

fn labels(device: &Device) -> String {
    let pairs = device
        .metadata
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

fn machine(device: &Device) -> String {
    let hardware = &device.status.hardware;
    let parts = [
        &hardware.model,
        &hardware.serial,
        &hardware.architecture,
        &hardware.os,
    ];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
}

fn running(running: &Running) -> String {
    let digest = running.manifest.trim_start_matches("sha256:");
    let mut text = format!(
        "release {}  manifest {}",
        running.release,
        digest.get(..12).unwrap_or(digest)
    );
    if let Some(commit) = &running.commit {
        let id = commit.id.trim_start_matches("sha256:");
        write(
            &mut text,
            format_args!("  commit {}", id.get(..7).unwrap_or(id)),
        );
        if !commit.subject.is_empty() {
            write(&mut text, format_args!(" \"{}\"", commit.subject));
        }
    }
    text
}

/// The day, in UTC.
fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes any text");
}
