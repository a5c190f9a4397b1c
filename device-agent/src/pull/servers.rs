//! The server's addresses, and which one it is the turn of. Pure.
//!
//! The release says where the server is, in order of preference; where it was when the device joined comes last. A lost
//! connection begins again with the first, and every address has its turn before the device waits.

/// The addresses of one server.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    joined: String,
    preferred: Vec<String>,
    at: usize,
}

impl Servers {
    /// What a device knows that has joined and has no release yet.
    pub(super) fn new(joined: String) -> Self {
        Self {
            joined,
            preferred: Vec::new(),
            at: 0,
        }
    }

    fn get(&self, at: usize) -> &str {
        self.preferred.get(at).unwrap_or(&self.joined)
    }

    fn len(&self) -> usize {
        let is_named = self.preferred.contains(&self.joined);
        self.preferred.len() + usize::from(!is_named)
    }

    /// Whether these are the preferred ones.
    pub(super) fn are(&self, preferred: &[String]) -> bool {
        self.preferred == preferred
    }

    /// Takes what a release says. The one in use stays in use: it is left when a better one has answered, or when it is gone.
    pub(super) fn prefer(&mut self, preferred: &[String]) {
        let current = self.current().to_owned();
        self.preferred = preferred.to_vec();
        let known = (0..self.len()).find(|at| self.get(*at) == current);
        // one that is no longer named is the least preferred
        self.at = known.unwrap_or(self.len() - 1);
    }

    /// The one whose turn it is.
    pub(super) fn current(&self) -> &str {
        self.get(self.at)
    }

    /// Those that are preferred to it, best first.
    pub(super) fn better(&self) -> Vec<String> {
        (0..self.at).map(|at| self.get(at).to_owned()).collect()
    }

    /// One of them has answered.
    pub(super) fn use_this(&mut self, server: &str) {
        let known = (0..self.len()).find(|at| self.get(*at) == server);
        self.at = known.unwrap_or(self.at);
    }

    /// The current one has failed: the turn of the next. False when all have had their turn, and the first is the next.
    pub(super) fn advance(&mut self) -> bool {
        self.at = (self.at + 1) % self.len();
        self.at != 0
    }

    /// A connection that worked is lost: the first is tried first.
    pub(super) fn restart(&mut self) {
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(preferred: &[&str]) -> Servers {
        let mut servers = Servers::new("https://old".to_owned());
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
        // a release that swaps them does not break the connection either
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
    fn where_it_joined_is_tried_once() {
        let mut servers = servers(&["https://old", "https://new"]);
        assert_eq!(servers.current(), "https://old");
        assert!(servers.advance());
        assert!(!servers.advance());
    }
}
