//! The walls of the house, as numbers that may only fall.
//!
//! What the compiler does not see is counted in the sources: how much one struct holds, who may touch what it does not
//! own, which files cannot be read without each other, in how many places one thing is spelled. Each number has a
//! ceiling in the table. Above it this fails and says where to look. Below it too, so that what was won stays won: the
//! ceiling is lowered in the commit that did it.

#[path = "walls/circles.rs"]
mod circles;
#[path = "walls/house.rs"]
mod house;
#[path = "walls/imports.rs"]
mod imports;
#[path = "walls/shape.rs"]
mod shape;
#[path = "walls/snippets.rs"]
mod snippets;
#[path = "walls/source.rs"]
mod source;
#[path = "walls/spelled.rs"]
mod spelled;

use house::{Count, House};

/// What is counted, how many there may be, and how many there should be one day.
struct Wall {
    what: &'static str,
    ceiling: usize,
    goal: usize,
    count: fn(&House) -> Count,
}

const fn wall(what: &'static str, ceiling: usize, goal: usize, count: fn(&House) -> Count) -> Wall {
    Wall { what, ceiling, goal, count }
}

/// What, ceiling, goal. A circle that nobody has set a goal for has its ceiling for one.
const WALLS: &[Wall] = &[
    wall("fields of NodeCore", 12, 12, House::fields),
    wall("variants of what happens to the core", 33, 33, House::inputs),
    wall("variants of what the core wants done", 17, 17, House::actions),
    wall("owners in NodeCore with a field that all of the core may touch", 0, 0, House::open_owners),
    wall("files of the largest circle in the core", 0, 4, |house| {
        house.circle("ws-node/src", "ws-node/src/core/")
    }),
    wall("files of the largest circle in ws-node without the core", 0, 0, |house| {
        house.circle_without("ws-node/src", "ws-node/src/core/")
    }),
    wall("files of the largest circle in coordinator", 5, 5, |house| house.circle("coordinator/src", "")),
    wall("files of the largest circle in archiver", 0, 0, |house| house.circle("archiver/src", "")),
    wall("files of the largest circle in cli", 2, 2, |house| house.circle("cli/src", "")),
    wall("files of the largest circle in proto", 0, 0, |house| house.circle("crates/proto/src", "")),
    wall("files of the largest circle in ring", 0, 0, |house| house.circle("crates/ring/src", "")),
    wall("files of the largest circle in backend", 8, 8, |house| house.circle("crates/backend/src", "")),
    wall("files of the largest circle in service", 3, 3, |house| house.circle("crates/service/src", "")),
    wall("files of the largest circle in the Rust SDK", 4, 4, |house| {
        house.circle("client-sdk/rust/src", "")
    }),
    wall("places in which a command of a client is spelled, at most", 4, 4, |house| house.commands().most()),
    wall("places in which a question to the store is spelled, at most", 5, 5, |house| {
        house.questions().most()
    }),
    wall("functions of more than 70 lines", 0, 2, House::long_functions),
    // Those that stay are about what was written by the same program.
    wall("`unreachable!`", 2, 2, House::unreachable),
];

impl Wall {
    /// What is to be said of a count, if anything.
    fn complaint(&self, count: &Count) -> Option<String> {
        let Self { what, ceiling, goal, .. } = self;
        let number = count.number;
        if number > *ceiling {
            let places = count.places.join("\n    ");
            return Some(format!(
                "{what}: {number}, of at most {ceiling} (the goal is {goal}):\n    {places}"
            ));
        }
        let lower =
            format!("{what}: {number}, below the ceiling of {ceiling}: lower the ceiling to {number}");
        (number < *ceiling).then_some(lower)
    }
}

#[test]
fn no_wall_is_lower_than_it_was() {
    let house = House::read();
    let complaints: Vec<_> = WALLS.iter().filter_map(|wall| wall.complaint(&(wall.count)(&house))).collect();
    let table = "the table is in tests/tests/walls.rs";
    assert!(complaints.is_empty(), "{table}\n{}\n", complaints.join("\n"));
}

#[test]
fn a_number_above_its_ceiling_names_its_places_and_one_below_it_the_new_ceiling() {
    let wall = wall("things", 2, 1, House::fields);
    let count = |number| Count { number, places: vec!["a.rs:3 thing".to_owned()] };
    assert_eq!(wall.complaint(&count(2)), None);
    let above = wall.complaint(&count(3)).expect("above");
    assert!(above.contains("things: 3, of at most 2") && above.contains("a.rs:3 thing"), "{above}");
    let below = wall.complaint(&count(1)).expect("below");
    assert!(below.contains("lower the ceiling to 1"), "{below}");
}
