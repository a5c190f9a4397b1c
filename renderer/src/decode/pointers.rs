//! Maps from JSON pointers (RFC 6901) that are built once, then only read.
//!
//! A fleet of 100,000 devices has a million pointers, so those of a document share one string.

/// The longest string for the pointers of a document, in bytes. A document of 100,000 values needs 6 MB. One that has a long key
/// around many values would need gigabytes: places within it are only as exact as that of the key.
const MAX_TEXT: usize = 64 << 20;

/// A map from pointers.
#[derive(Debug, Clone)]
pub(super) struct Pointers<T> {
    text: Box<str>,
    /// Sorted by the pointer: where the pointer begins and ends in the text, and its value.
    all: Box<[(u32, u32, T)]>,
}

impl<T> Pointers<T> {
    pub(super) fn get(&self, pointer: &str) -> Option<&T> {
        let found = self
            .all
            .binary_search_by(|(from, to, _)| self.pointer(*from, *to).cmp(pointer));
        found.ok().map(|at| &self.all[at].2)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let all = self.all.iter();
        all.map(|(from, to, what)| (self.pointer(*from, *to), what))
    }

    fn pointer(&self, from: u32, to: u32) -> &str {
        &self.text[from as usize..to as usize]
    }
}

/// Collects pointers in any order. Each may be added once.
#[derive(Debug)]
pub(super) struct Builder<T> {
    text: String,
    all: Vec<(u32, u32, T)>,
}

impl<T> Default for Builder<T> {
    fn default() -> Self {
        let (text, all) = (String::new(), Vec::new());
        Self { text, all }
    }
}

impl<T> Builder<T> {
    pub(super) fn insert(&mut self, pointer: &str, what: T) {
        if self.text.len() + pointer.len() > MAX_TEXT {
            return;
        }
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let from = length(&self.text);
        self.text.push_str(pointer);
        self.all.push((from, length(&self.text), what));
    }

    pub(super) fn build(mut self) -> Pointers<T> {
        let text = self.text.into_boxed_str();
        let pointer = |(from, to, _): &(u32, u32, T)| &text[*from as usize..*to as usize];
        self.all.sort_unstable_by(|a, b| pointer(a).cmp(pointer(b)));
        let all = self.all.into_boxed_slice();
        Pointers { text, all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pointer_leads_to_its_value() {
        let mut builder = Builder::default();
        let pointers = ["/b", "", "/a/0", "/a", "/a/10", "/a/2"];
        for (number, pointer) in pointers.into_iter().enumerate() {
            builder.insert(pointer, number);
        }
        let built = builder.build();
        for (number, pointer) in pointers.into_iter().enumerate() {
            assert_eq!(built.get(pointer), Some(&number), "{pointer}");
        }
        assert_eq!(built.get("/a/1"), None);
        assert!(built.iter().map(|(pointer, _)| pointer).is_sorted());
        assert_eq!(built.iter().count(), pointers.len());
    }

    #[test]
    fn a_long_key_around_many_values_takes_no_more_than_the_limit() {
        let mut builder = Builder::default();
        let key = format!("/{}", "k".repeat(1 << 20));
        for number in 0..100 {
            builder.insert(&format!("{key}/{number}"), number);
        }
        let built = builder.build();
        assert!(built.text.len() <= MAX_TEXT);
        assert_eq!(built.get(&format!("{key}/5")), Some(&5));
        assert_eq!(built.get(&format!("{key}/99")), None);
    }
}
