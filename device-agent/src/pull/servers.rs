//! The server's addresses, and which one to use. Pure.
//!
//! The release lists the server's addresses in order of preference; the address where it answered last, and the one that the
//! device joined at, come after these, so that a release with a wrong address cuts no device off from its server. After a
//! lost connection the first address is tried first, and every address is tried before the device waits.

/// The addresses of one server.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    joined: String,
    /// The address at which it answered last.
    worked: Option<String>,
    preferred: Vec<String>,
    /// All addresses, without duplicates.
    all: Vec<String>,
    at: usize,
}

impl Servers {
    /// The addresses that a device knows without a release: where it joined, and where the server answered last.
    pub(super) fn new(joined: String, worked: Option<String>) -> Self {
        let mut servers = Self {
            joined,
            worked,
            preferred: Vec::new(),
            all: Vec::new(),
            at: 0,
        };
        servers.list();
        servers
    }

    fn list(&mut self) {
        let mut all = self.preferred.clone();
        for server in self.worked.iter().chain([&self.joined]) {
            if !all.contains(server) {
                all.push(server.clone());
            }
        }
        self.all = all;
    }

    fn find(&self, server: &str) -> Option<usize> {
        self.all.iter().position(|known| known == server)
    }

    /// Whether these are the preferred addresses.
    pub(super) fn are(&self, preferred: &[String]) -> bool {
        self.preferred == preferred
    }

    /// Adopts the addresses of a release. The current one stays in use until a preferred one has answered, or it fails.
    pub(super) fn prefer(&mut self, preferred: &[String]) {
        let current = self.current().to_owned();
        self.preferred = preferred.to_vec();
        self.list();
        // an address that is no longer named, and never worked, is the least preferred
        self.at = self.find(&current).unwrap_or(self.all.len() - 1);
    }

    /// The current address.
    pub(super) fn current(&self) -> &str {
        &self.all[self.at]
    }

    /// Records that the current address serves this device, and returns it.
    pub(super) fn works(&mut self) -> &str {
        let current = self.current().to_owned();
        self.worked = Some(current.clone());
        self.list();
        self.at = self.find(&current).unwrap_or_default();
        self.current()
    }

    /// The addresses that are preferred to the current one, best first.
    pub(super) fn better(&self) -> Vec<String> {
        self.all[..self.at.min(self.preferred.len())].to_vec()
    }

    /// Makes an address the current one, because it has answered.
    pub(super) fn use_this(&mut self, server: &str) {
        self.at = self.find(server).unwrap_or(self.at);
    }

    /// Moves to the next address after a failure. False when all have been tried, and the first is next again.
    pub(super) fn advance(&mut self) -> bool {
        self.at = (self.at + 1) % self.all.len();
        self.at != 0
    }

    /// Starts again with the first address, after a working connection is lost.
    pub(super) fn restart(&mut self) {
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(preferred: &[&str]) -> Servers {
        let mut servers = Servers::new("https://old".to_owned(), None);
        servers.prefer(&texts(preferred));
        servers
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_device_that_was_told_nothing_goes_where_it_joined() {
        let mut servers = servers(&[]);
        assert_eq!(servers.current(), "https://old");
        assert!(servers.better().is_empty());
        assert!(!servers.advance(), "there is no other to try first");
        assert_eq!(servers.current(), "https://old");
    }

    #[test]
    fn the_one_in_use_is_left_when_a_better_one_answers() {
        let mut servers = servers(&["https://new", "https://spare"]);
        assert_eq!(servers.current(), "https://old");
        assert_eq!(servers.better(), ["https://new", "https://spare"]);
        servers.use_this("https://spare");
        assert_eq!(servers.better(), ["https://new"]);
        // a release that reorders them does not break the connection either
        servers.prefer(&texts(&["https://spare", "https://new"]));
        assert_eq!(servers.current(), "https://spare");
        assert!(servers.better().is_empty());
        // nor does one that no longer names it
        servers.prefer(&texts(&["https://new"]));
        assert_eq!(servers.better(), ["https://new"]);
    }

    #[test]
    fn all_have_their_turn_and_then_the_device_waits() {
        let mut servers = servers(&["https://new", "https://spare"]);
        servers.restart();
        let mut tried = vec![servers.current().to_owned()];
        while servers.advance() {
            tried.push(servers.current().to_owned());
        }
        assert_eq!(tried, ["https://new", "https://spare", "https://old"]);
        assert_eq!(servers.current(), "https://new");
    }

    #[test]
    fn a_release_with_a_wrong_address_takes_no_device_from_its_server() {
        let mut servers = servers(&["https://new"]);
        servers.use_this("https://new");
        assert_eq!(servers.works(), "https://new");
        servers.prefer(&texts(&["https://mistyped"]));
        assert_eq!(servers.current(), "https://new");
        assert_eq!(servers.better(), ["https://mistyped"]);
        // this also holds after a reboot
        let kept = Some("https://new".to_owned());
        let mut servers = Servers::new("https://old".to_owned(), kept);
        servers.prefer(&texts(&["https://mistyped"]));
        servers.restart();
        let mut tried = vec![servers.current().to_owned()];
        while servers.advance() {
            tried.push(servers.current().to_owned());
        }
        assert_eq!(tried, ["https://mistyped", "https://new", "https://old"]);
    }

    #[test]
    fn where_it_joined_is_tried_once() {
        let mut servers = servers(&["https://old", "https://new"]);
        assert_eq!(servers.current(), "https://old");
        assert!(servers.advance());
        assert!(!servers.advance());
    }
}
