//! `docs/PROTOCOL.md`, the JavaScript SDK and the code say the same: the tables of codes, and which frames there are.

use std::collections::BTreeSet;

use roost_proto::codes::{CloseCode, ErrorCode, reconnects};
use roost_proto::frames::{ClientFrame, SUBPROTOCOL, ServerFrame};

const PROTOCOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../client-sdk/js/src/codes.js");

fn protocol() -> String {
    std::fs::read_to_string(PROTOCOL).expect("docs/PROTOCOL.md is there")
}

/// The cells of the table between `<!-- name -->` and `<!-- /name -->`, without the head, and without the marks of
/// code around a cell.
fn table(text: &str, name: &str, head: &[&str]) -> Vec<Vec<String>> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    assert_eq!((text.matches(&begin).count(), text.matches(&end).count()), (1, 1), "{name} is marked once");
    let inside = text.split(&begin).nth(1).and_then(|rest| rest.split(&end).next()).expect("marked");
    let row = |line: &str| -> Vec<String> {
        let line = line.trim().strip_prefix('|').and_then(|l| l.strip_suffix('|'));
        let cells = line.unwrap_or_else(|| panic!("a line of {name} is no row of a table")).split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut rows = inside.lines().filter(|line| !line.trim().is_empty()).map(row);
    assert_eq!(rows.next().expect("a head"), head, "{name}");
    assert!(
        rows.next().expect("a line below it").iter().all(|cell| cell.chars().all(|c| c == '-' || c == ':'))
    );
    rows.collect()
}

#[test]
fn the_table_of_error_codes_is_that_of_the_code() {
    let documented = table(&protocol(), "codes:errors", &["code", "retry", "HTTP", "meaning"]);
    let row = |code: &ErrorCode| {
        let retry = if code.retryable() { "yes" } else { "no" };
        [code.as_str(), retry, &code.http_status().to_string(), code.meaning()].map(str::to_owned).to_vec()
    };
    assert_eq!(documented, ErrorCode::ALL.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn the_table_of_close_codes_is_that_of_the_code() {
    let documented = table(&protocol(), "codes:close", &["code", "client", "meaning"]);
    let row = |code: &CloseCode| {
        let client = if reconnects(code.code()) { "reconnects" } else { "stops" };
        [&code.code().to_string(), client, code.meaning()].map(str::to_owned).to_vec()
    };
    assert_eq!(documented, CloseCode::ALL.iter().map(row).collect::<Vec<_>>());
}

/// Writes the file if it is different, so that it has only to be looked at and committed.
#[test]
fn the_codes_of_the_javascript_sdk_are_those_of_the_code() {
    let text = javascript();
    if std::fs::read_to_string(SDK).ok().as_ref() != Some(&text) {
        std::fs::write(SDK, text).expect("written");
        panic!("{SDK} was made anew: look at it and commit it");
    }
}

fn javascript() -> String {
    let made = "// Made from crates/proto/src/codes.rs by `cargo test -p roost-tests --test codes`. Not to be edited.\n";
    let constant = |meaning: &str, name: &str, value: &str| {
        format!("\n/** {meaning} */\nexport const {name} = {value};\n")
    };
    let error = |code: &ErrorCode| {
        let text = code.as_str();
        constant(code.meaning(), &format!("ERROR_{}", text.to_uppercase()), &format!("'{text}'"))
    };
    let close = |code: &CloseCode| {
        constant(
            code.meaning(),
            &format!("CLOSE{}", screaming(&format!("{code:?}"))),
            &code.code().to_string(),
        )
    };
    let retryable = ErrorCode::ALL.iter().filter(|code| code.retryable());
    let retryable: Vec<_> = retryable.map(|code| format!("'{}'", code.as_str())).collect();
    let retryable = constant(
        "Error codes after which the same command under the same id may succeed.",
        "RETRYABLE",
        &format!("[{}]", retryable.join(", ")),
    );
    let stops: Vec<_> =
        (1000..3500).filter(|code| !reconnects(*code)).map(|code: u16| code.to_string()).collect();
    let reconnects = format!(
        "\n/**\n * Whether a client that was closed with `code` connects again, through `/route`, with jitter.\n \
         * @param {{number}} code\n */\nexport const reconnects = (code) => ![{}].includes(code) && \
         (code < 3500 || code > 3999);\n",
        stops.join(", ")
    );
    let errors: String = ErrorCode::ALL.iter().map(error).collect();
    let closes: String = CloseCode::ALL.iter().map(close).collect();
    [made, &errors, &retryable, &closes, &reconnects].concat()
}

/// `BadToken` as `_BAD_TOKEN`.
fn screaming(name: &str) -> String {
    let letter = |c: char| if c.is_uppercase() { format!("_{c}") } else { c.to_uppercase().to_string() };
    name.chars().map(letter).collect()
}

/// Each frame is described under the heading of its direction, and names its schema.
#[test]
fn every_frame_is_described() {
    let text = protocol();
    let section = |title: &str| {
        let begin =
            text.find(&format!("### {title}\n")).unwrap_or_else(|| panic!("there is no section {title}"));
        let rest = &text[begin + 4..];
        rest.find("\n## ").into_iter().chain(rest.find("\n### ")).min().map_or(rest, |end| &rest[..end])
    };
    let mut missing = BTreeSet::new();
    for (title, side, tags) in
        [("Client to server", "client", ClientFrame::TAGS), ("Server to client", "server", ServerFrame::TAGS)]
    {
        let section = section(title);
        for tag in tags {
            if !section.contains(&format!("**[`{tag}`](schema/{side}/{tag}.json)**")) {
                missing.insert(format!("{title}: {tag} is not described"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(text.contains(&format!("`{SUBPROTOCOL}`")));
}
