//! The start screen of `flotta serve`.

use flotta_reconciler::admin::DEFAULT_SOCKET;
use flotta_reconciler::admin::request::FleetFacts;
use flotta_reconciler::serve::About;
use jiff::Timestamp;

use super::fingerprint;

/// The server, and at the first start what was created and what to do next.
pub(crate) fn screen(about: &About) -> String {
    let data = about.data.display();
    let mut rows = Vec::new();
    let head = if about.first_start {
        format!(
            "flotta {}: first start, made a fleet in {data}\n",
            about.version
        )
    } else {
        format!("flotta {}: fleet in {data}\n", about.version)
    };
    let hint = |text: &str| {
        if about.first_start {
            text.to_owned()
        } else {
            String::new()
        }
    };
    let facts = &about.facts;
    rows.push(("fleet", facts.fleet.clone(), hint("(rename: --fleet)")));
    rows.push((
        "trust root",
        format!(
            "{}  v{}",
            fingerprint(&facts.trust_root),
            facts.trust_root_version
        ),
        hint(&format!(
            "keep a copy offline: flotta keys export{}",
            data_argument(about)
        )),
    ));
    rows.push((
        "device CA",
        fingerprint(&facts.device_ca),
        format!("until {}", date(facts.device_ca_expires)),
    ));
    rows.push((
        "edge API",
        format!("https://{}", about.listen),
        format!(
            "certificate for {} {}",
            about.names.join(", "),
            hint("(rename: --name)")
        ),
    ));
    if let Some(hooks) = about.hooks {
        rows.push(("hooks", format!("http://{hooks}/hooks/git"), String::new()));
    }
    if let Some(clock) = &about.clock {
        rows.push(("clock", clock.to_string(), String::new()));
    }
    rows.push(("admin", about.admin.display().to_string(), String::new()));

    let width = rows
        .iter()
        .filter(|row| !row.2.is_empty())
        .map(|row| row.1.chars().count())
        .max();
    let width = width.unwrap_or_default();
    let text = rows.iter().fold(head, |text, (name, value, more)| {
        let line = format!("  {name:<11}  {value:<width$}  {more}");
        text + line.trim_end() + "\n"
    });
    match &about.clock {
        Some(clock) => format!("{text}  to do        {}\n", clock.help),
        None => text,
    }
}

/// The next step.
pub(crate) fn ready(about: &About) -> String {
    let admin = if about.admin.as_os_str() == DEFAULT_SOCKET {
        String::new()
    } else {
        format!(" --admin {}", about.admin.display())
    };
    format!("ready   join a device:  flotta{admin} token create > device.join")
}

/// `flotta keys show`.
pub(crate) fn keys(facts: &FleetFacts) -> String {
    format!(
        "fleet       {}\ntrust root  {}  v{}\ndevice CA   {}  until {}\nserver      {}  certificate until {}\n",
        facts.fleet,
        fingerprint(&facts.trust_root),
        facts.trust_root_version,
        fingerprint(&facts.device_ca),
        date(facts.device_ca_expires),
        facts.server,
        date(facts.server_expires),
    )
}

fn data_argument(about: &About) -> String {
    if about.data.as_os_str() == "/var/lib/flotta" {
        String::new()
    } else {
        format!(" --data {}", about.data.display())
    }
}

fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}
