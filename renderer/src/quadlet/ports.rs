//! Published ports (podman-run(1), `--publish`).

/// Ports of the machine, at one address and for one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The address of the machine; empty for all addresses.
    pub address: String,
    /// The first port of the machine; `None` if Podman chooses it.
    pub first: Option<u16>,
    /// The number of ports.
    pub count: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Reads `[[ADDRESS:][PORT]:]CONTAINERPORT[/PROTOCOL]`, where ports may be ranges.
pub fn parse(text: &str) -> Result<Published, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("`{protocol}` is not tcp, udp or sctp"));
    }
    let (address, ports) = match ports.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or("`[` without `]`")?;
            let rest = rest
                .strip_prefix(':')
                .ok_or("a port is missing after the address")?;
            (Some(address), rest)
        }
        None if ports.matches(':').count() == 2 => {
            let (address, rest) = ports.split_once(':').unwrap_or_default();
            (Some(address), rest)
        }
        None => (None, ports),
    };
    if let Some(address) = address.filter(|address| !address.is_empty()) {
        let address = address.split('%').next().unwrap_or_default();
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("`{address}` is not an address"));
        }
    }
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) => (host, container),
        None if address.is_some() => return Err("a port of the container is missing".to_owned()),
        None => ("", ports),
    };
    let (_, count) = range(container)?;
    let first = if host.is_empty() {
        None
    } else {
        let (first, of_host) = range(host)?;
        if of_host != count {
            return Err(format!(
                "{of_host} host ports are given for {count} container ports"
            ));
        }
        Some(first)
    };
    Ok(Published {
        address: address.unwrap_or_default().to_owned(),
        first,
        count,
        protocol,
    })
}

/// Parses `PORT` or `FIRST-LAST`. Returns the first port and the number of ports.
pub fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
        port.ok_or_else(|| format!("`{text}` is not a port"))
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("the range {text} ends before it begins"));
    }
    Ok((first, last - first + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_podman_reads_them() {
        for (text, address, first, count, protocol) in [
            ("80", "", None, 1, "tcp"),
            ("8080:80", "", Some(8080), 1, "tcp"),
            ("8080:80/UDP", "", Some(8080), 1, "udp"),
            ("127.0.0.1:8080:80", "127.0.0.1", Some(8080), 1, "tcp"),
            ("127.0.0.1::80", "127.0.0.1", None, 1, "tcp"),
            ("[::1]:8080:80/sctp", "::1", Some(8080), 1, "sctp"),
            ("8000-8009:80-89", "", Some(8000), 10, "tcp"),
            (":80", "", None, 1, "tcp"),
        ] {
            let published = Published {
                address: address.to_owned(),
                first,
                count,
                protocol: protocol.to_owned(),
            };
            assert_eq!(parse(text), Ok(published), "{text}");
        }
    }

    #[test]
    fn ports_that_podman_refuses_are_errors() {
        for text in [
            "http:80",
            "80:",
            "0:80",
            "70000:80",
            "8080:80/http",
            "8000-8001:80",
            "81-80",
            "localhost:8080:80",
            "[::1]:80",
            "[::1",
            "127.0.0.1:8080:80:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
