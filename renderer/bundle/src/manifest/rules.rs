//! The rules of names and lists in a manifest.

use super::{MAX_SERVER_BYTES, MAX_SERVERS};
use crate::path;

pub(super) fn ascending<'a>(
    what: &str,
    mut items: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let Some(mut last) = items.next() else {
        return Ok(());
    };
    for item in items {
        if item <= last {
            return Err(format!(
                "{what} are not sorted, or {item:?} is listed twice"
            ));
        }
        last = item;
    }
    Ok(())
}

/// Whether the first two schemas allow this name: a service or timer without `@`.
pub(super) fn is_unit_name_of_old(name: &str) -> bool {
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    !name.contains('@') && ["service", "timer"].contains(&kind)
}

/// Checks the name of a unit. It must be one that can be started, so not a template without an instance.
pub(super) fn check_unit_name(name: &str) -> Result<(), String> {
    let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
    if path::is_unit_name(name) && !stem.ends_with('@') {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not a unit name that a release may use"
    ))
}

/// Checks the name of an account with the rule of useradd(8), so that it cannot be read as a number or an option.
pub(super) fn check_account(name: &str) -> Result<(), String> {
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
    if name.len() <= 32 && name.bytes().next().is_some_and(first) && name.bytes().all(rest) {
        return Ok(());
    }
    Err(format!("{name:?} is not an account name"))
}

pub(super) fn check_reference(reference: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b);
    if (1..=512).contains(&reference.len())
        && reference.bytes().all(plain)
        && !reference.starts_with('-')
    {
        return Ok(());
    }
    Err(format!("{reference:?} is not an image reference"))
}

/// Checks the addresses of a server: see [`Settings::servers`].
pub fn check_servers(servers: &[String]) -> Result<(), String> {
    if servers.len() > MAX_SERVERS {
        let count = servers.len();
        return Err(format!(
            "{count} servers, at most {MAX_SERVERS} are allowed"
        ));
    }
    for (at, server) in servers.iter().enumerate() {
        if !is_server(server) {
            return Err(format!(
                "{server:?} is not the address of a server: write https://HOST or https://HOST:PORT"
            ));
        }
        if servers[..at].contains(server) {
            return Err(format!("server {server} is named twice"));
        }
    }
    Ok(())
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets; then a port, or none for 443.
fn is_server(server: &str) -> bool {
    let Some(authority) = server.strip_prefix("https://") else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => crate::name::check_subdomain(host).is_ok(),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0);
    server.len() <= MAX_SERVER_BYTES && is_host && port.is_none_or(is_port)
}
