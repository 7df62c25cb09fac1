//! The counting, counted itself: on texts so small that the right number is plain.

use std::collections::BTreeSet;
use std::path::Path;

use super::circles::{circles, ties};
use super::house::{House, PRODUCT, root};
use super::imports::{Graph, graph};
use super::source::Crate;
use super::{shape, spelled};

/// Who takes what from whom, as `a.rs > b.rs: names`.
fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let graph = graph(&Crate::of(files));
    let arrow = |(from, taken): (&String, &std::collections::BTreeMap<String, BTreeSet<String>>)| {
        let shown = taken.iter().map(|(to, names)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            format!("{from} > {to}: {}", names.join(" "))
        });
        shown.collect::<Vec<_>>()
    };
    graph.iter().flat_map(arrow).collect()
}

#[test]
fn what_is_imported_leads_to_the_file_that_defines_it() {
    let found = arrows(&[
        ("lib.rs", "mod a; mod b; pub use a::One; struct Own;"),
        ("a.rs", "pub struct One; pub struct Two;"),
        ("b.rs", "use crate::{One, Own}; fn f() { super::a::Two::make(); }"),
    ]);
    assert_eq!(found, ["b.rs > a.rs: One Two", "b.rs > lib.rs: Own", "lib.rs > a.rs: One"]);
}

#[test]
fn a_renamed_import_and_one_of_a_function_are_followed() {
    let found = arrows(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub mod x {} pub enum E { V }"),
        ("b.rs", "pub use crate::a::E as F;"),
        ("c.rs", "fn f() { use super::b; let _ = b::F::V; }"),
    ]);
    assert_eq!(found, ["b.rs > a.rs: E", "c.rs > a.rs: E"]);
}

#[test]
fn a_module_alone_and_another_crate_are_no_imports() {
    let found = arrows(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "use super::b; use bytes::bytes; use serde::Serialize; fn f(_: bytes::Bytes) -> std::io::Result<()> { tokio::spawn(()) }",
        ),
        ("b.rs", "pub struct Two;"),
    ]);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn everything_of_a_module_is_an_import_of_its_file() {
    let found = arrows(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub use super::c::*;"),
        ("b.rs", "use super::a::Three;"),
        ("c.rs", "pub struct Three;"),
    ]);
    assert_eq!(found, ["a.rs > c.rs: *", "b.rs > c.rs: Three"]);
}

#[test]
fn a_folder_is_a_module_and_a_path_in_a_macro_is_a_path() {
    let found = arrows(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod x; pub const N: u8 = 1;"),
        ("a/x.rs", "use super::N; fn f() { assert!(vec![super::super::b::M].is_empty(), \"{}\", N); }"),
        ("b.rs", "pub const M: u8 = 1;"),
    ]);
    assert_eq!(found, ["a/x.rs > a/mod.rs: N", "a/x.rs > b.rs: M"]);
}

#[test]
fn what_only_tests_see_is_not_there() {
    let text = "
        #[cfg(test)] use super::b::M;
        #[cfg(test)] mod tests { fn f() { super::super::b::M; unreachable!() } }
        mod inside { #[cfg(test)] fn f() { unreachable!() } }
        struct S;
        impl S { #[cfg(test)] fn f() { unreachable!() } }
        #[cfg(unix)] fn g() { unreachable!() }";
    let files = [("lib.rs", "mod a; mod b;"), ("a.rs", text), ("b.rs", "pub const M: u8 = 1;")];
    assert_eq!(arrows(&files), Vec::<String>::new());
    assert_eq!(spelled::calls(&Crate::of(&files), "unreachable"), ["a.rs:7"]);
}

fn graph_of(arrows: &[(&str, &str)]) -> Graph {
    let mut graph = Graph::new();
    for (from, to) in arrows {
        graph.entry((*to).to_owned()).or_default();
        let taken = graph.entry((*from).to_owned()).or_default();
        taken.entry((*to).to_owned()).or_default().insert("N".to_owned());
    }
    graph
}

#[test]
fn a_circle_has_those_that_reach_each_other_and_nobody_else() {
    let graph =
        graph_of(&[("a", "b"), ("b", "c"), ("c", "a"), ("out", "a"), ("c", "in"), ("x", "y"), ("y", "x")]);
    let found = circles(&graph);
    assert_eq!(
        found,
        [BTreeSet::from(["a", "b", "c"].map(String::from)), BTreeSet::from(["x", "y"].map(String::from))]
    );
    assert_eq!(ties(&graph, &found[1]), ["x takes N from y", "y takes N from x"]);
    assert!(circles(&graph_of(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
}

#[test]
fn fields_and_variants_are_counted_where_they_are_looked_for() {
    let of = Crate::of(&[
        ("lib.rs", "mod core; enum Old { A }"),
        ("core/mod.rs", "struct Whole {\n  a: u8,\n  b: u8,\n}\nenum Old { A, B, C }"),
    ]);
    assert_eq!(shape::fields(&of, "core/", "Whole"), ["core/mod.rs:2 a", "core/mod.rs:3 b"]);
    assert_eq!(shape::variants(&of, "core/", &["New", "Old"]).len(), 3);
}

#[test]
fn an_owner_is_open_if_a_field_can_be_touched_from_outside_of_its_room() {
    let parts = "
        pub struct Private { a: u8, pub(self) b: u8 }
        pub struct Beside { pub(super) a: u8 }
        pub struct Open { pub a: u8, b: u8, pub(crate) c: u8, pub(in crate::core) d: u8 }
        pub struct Key(pub u8);
        pub struct Settings { pub a: u8 }";
    let of = Crate::of(&[
        ("lib.rs", "mod core; pub struct Elsewhere { pub a: u8 }"),
        (
            "core/mod.rs",
            "use parts::{Private, Beside, Key, Settings}; use room::inner::Inner; use crate::Elsewhere;
             struct Whole { a: Private, b: Vec<Beside>, c: Map<Key, parts::Open>, d: Inner, e: Settings, f: Elsewhere }",
        ),
        ("core/parts.rs", parts),
        ("core/room/mod.rs", "mod inner;"),
        ("core/room/inner.rs", "pub struct Inner { pub(super) a: u8, pub(in crate::core::room) b: u8 }"),
    ]);
    let open = shape::open_owners(&of, "core/", "Whole", &["Settings"]);
    assert_eq!(open, ["core/parts.rs:3 Beside: a", "core/parts.rs:4 Open: a, c, d"]);
}

#[test]
fn a_function_is_as_long_as_from_its_fn_to_its_last_brace() {
    let text = "
        /// Three lines.
        #[inline]
        fn three() {
            1;
        }
        impl S { fn four() {
            2;
            3;
        } }
        trait T { fn also_four() {
            let inside = || {
            };
        }
        fn none(); }";
    let of = Crate::of(&[("lib.rs", text)]);
    assert_eq!(shape::long_functions(&of, 3), ["lib.rs:7 four: 4 lines", "lib.rs:11 also_four: 4 lines"]);
    assert_eq!(shape::long_functions(&of, 2).len(), 3);
}

#[test]
fn an_arm_is_one_place_and_so_is_each_other_mention() {
    let text = "
        enum Command {
            Send,
            Stop,
        }
        impl Command {
            fn name(&self) { if let Self::Send = self {} }
        }
        fn f(c: Command) {
            match c {
                Command::Send => {
                    Event::Send;
                    Command::Send
                }
                Command::Stop => match d {
                    Event::Send => 1,
                },
            };
            matches!(c, Some(Command::Send));
            Other::Send;
            events::Event::Send { a: 1 };
        }";
    let mentions = spelled::mentions(&Crate::of(&[("lib.rs", text)]), &["Command", "Event"]);
    let send = spelled::places(&mentions, &[("Command", "Send"), ("Event", "Send")]);
    let lines: BTreeSet<_> = [3, 7, 11, 16, 19, 21].map(|line| format!("lib.rs:{line}")).into();
    assert_eq!(send, lines);
    assert_eq!(spelled::places(&mentions, &[("Command", "Stop")]).len(), 2);
}

#[test]
fn a_macro_in_what_another_is_given_is_called_too() {
    let text =
        "fn f() {\n assert!(a.unwrap_or_else(|| unreachable!()));\n unreachable!();\n let unreachable = 1; }";
    assert_eq!(spelled::calls(&Crate::of(&[("lib.rs", text)]), "unreachable"), ["lib.rs:2", "lib.rs:3"]);
}

#[test]
fn the_variants_that_a_macro_makes_stand_behind_its_arrows() {
    let text = r#"
        macro_rules! frames { ($a:tt) => {}; }
        frames! { /// What a client says.
            Client { "send" => Send(Send), "ack" => Ack(Ack), } }
        frames! { Server { "welcome" => Welcome(Welcome), } }"#;
    assert_eq!(spelled::made_variants(&Crate::of(&[("lib.rs", text)]), "Client"), ["Send", "Ack"]);
}

#[test]
fn every_file_of_the_product_is_read_but_those_of_tests() {
    let house = House::read();
    let read = house.files();
    let mut on_disk = Vec::new();
    for source in PRODUCT {
        files_below(&root().join(source), &mut on_disk);
    }
    let tests = ["tests.rs", "/tests/", "_tests/", "_tests.rs", "/simulation/", "/contract/"];
    let unread = on_disk.iter().filter(|file| !read.contains(file.as_str()));
    let unread: Vec<_> = unread.filter(|file| !tests.iter().any(|part| file.contains(part))).collect();
    assert!(unread.is_empty(), "no `mod` leads to {unread:?}");
    assert!(on_disk.len() > 200, "{}", on_disk.len());
}

fn files_below(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path.strip_prefix(root()).expect("it is below").display().to_string());
        }
    }
}
