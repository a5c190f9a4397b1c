//! Reads Rust as rustfmt formats it: one field per line, with attributes and doc comments above it. It refuses what it does not
//! know.

/// What the documents need of a file of the crate.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) module: &'static str,
    /// Structs with named fields and enums that are serialised.
    pub(crate) items: Vec<Item>,
    /// Public constants.
    pub(crate) limits: Vec<Limit>,
}

/// A struct or enum.
#[derive(Debug, Default)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) is_enum: bool,
    pub(crate) members: Vec<Member>,
}

/// A field or variant.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// The name in JSON.
    pub(crate) name: String,
    /// Rust's type; empty for a variant.
    pub(crate) kind: String,
    pub(crate) doc: String,
    pub(crate) optional: bool,
    /// Fields of a variant.
    pub(crate) fields: Vec<Member>,
}

/// A constant.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: String,
    /// The expression.
    pub(crate) value: String,
    pub(crate) doc: String,
}

/// Doc comment and attributes above a line.
#[derive(Debug, Default)]
struct Above {
    doc: Vec<String>,
    attributes: String,
}

impl Above {
    /// Takes a line if it is a doc comment or an attribute; returns whether it is.
    fn take<'a>(&mut self, line: &str, rest: &mut impl Iterator<Item = &'a str>) -> bool {
        if let Some(doc) = line.strip_prefix("///") {
            self.doc.push(doc.trim().to_owned());
        } else if line.starts_with("#[") {
            self.attributes.push_str(line);
            let mut last = line;
            while !last.ends_with(']') {
                last = rest.next().expect("an attribute has an end").trim();
                self.attributes.push_str(last);
            }
        } else {
            return false;
        }
        true
    }

    fn doc(&self, of: &str) -> String {
        assert!(!self.doc.is_empty(), "{of} has no doc comment");
        self.doc.join(" ").trim().to_owned()
    }
}

impl Source {
    pub(crate) fn parse(module: &'static str, text: &str) -> Self {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let mut source = Self {
            module,
            items: Vec::new(),
            limits: Vec::new(),
        };
        let mut lines = text.lines();
        let mut above = Above::default();
        while let Some(line) = lines.next() {
            if above.take(line, &mut lines) {
                continue;
            }
            let above = std::mem::take(&mut above);
            let open = line.strip_prefix("pub ").unwrap_or(line).strip_suffix(" {");
            let head = open.and_then(|open| open.split_once(' '));
            if let Some((what @ ("struct" | "enum"), name)) = head
                && above.attributes.contains("Serialize")
            {
                source
                    .items
                    .push(item(name, what == "enum", &above, &mut lines));
            } else if let Some(rest) = line.strip_prefix("pub const ")
                && !rest.starts_with("fn ")
            {
                let mut whole = rest.to_owned();
                while !whole.ends_with(';') {
                    whole.push_str(lines.next().expect("a constant has an end").trim());
                }
                let (name, rest) = whole.split_once(':').expect("a constant has a type");
                let (_, value) = rest.split_once(" = ").expect("a constant has a value");
                source.limits.push(Limit {
                    name: name.to_owned(),
                    value: value.trim_end_matches(';').to_owned(),
                    doc: above.doc(name),
                });
            }
        }
        source
    }
}

fn item<'a>(
    name: &str,
    is_enum: bool,
    above: &Above,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Item {
    let mut item = Item {
        name: name.to_owned(),
        doc: above.doc(name),
        is_enum,
        members: members(name, lines),
    };
    let all = |name: &str| {
        above
            .attributes
            .contains(&format!("rename_all = \"{name}\""))
    };
    for member in &mut item.members {
        if all("lowercase") {
            member.name = member.name.to_lowercase();
        } else if all("camelCase") {
            member.name = camel_case(&member.name);
        } else {
            assert!(
                !above.attributes.contains("rename"),
                "{name}: another way of renaming"
            );
        }
    }
    item
}

/// Reads fields or variants, up to the closing brace.
fn members<'a>(of: &str, lines: &mut impl Iterator<Item = &'a str>) -> Vec<Member> {
    let mut members = Vec::new();
    let mut above = Above::default();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if above.take(line, lines) {
            continue;
        }
        if ["}", "},"].contains(&line) {
            return members;
        }
        let above = std::mem::take(&mut above);
        assert!(
            !above.attributes.contains("rename"),
            "{of}: a member is renamed"
        );
        let mut member = Member {
            doc: above.doc(line),
            ..Member::default()
        };
        if let Some(variant) = line.strip_suffix(" {") {
            variant.clone_into(&mut member.name);
            member.fields = self::members(variant, lines);
        } else if let Some((name, kind)) = line.split_once(": ") {
            let name = name.strip_prefix("pub ").unwrap_or(name);
            name.clone_into(&mut member.name);
            kind.trim_end_matches(',').clone_into(&mut member.kind);
            member.optional = above.attributes.contains("default") || kind.starts_with("Option<");
        } else {
            let variant = line.trim_end_matches(',');
            let plain = variant.chars().all(char::is_alphanumeric);
            assert!(plain, "{of}: cannot read {line:?}");
            variant.clone_into(&mut member.name);
        }
        members.push(member);
    }
    members
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        text.push_str(&first.to_uppercase());
        text.push_str(rest);
    }
    text
}
