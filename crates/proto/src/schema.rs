//! JSON Schemas (draft 2020-12) of the frames, made from their types: what `docs/schema` has.
//!
//! They say what this version writes, and what it takes from whoever writes the same: a field without a value is left
//! out, never null. Other fields are allowed, because a later version may add some. Lengths in bytes can only be given
//! in characters there, so what is not ASCII may be shorter still.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::Json;
use crate::codes::ErrorCode;
use crate::events::Message;
use crate::history::Before;
use crate::ids::{
    DeviceId, ID_BYTES_MAX, MESSAGE_ID_BYTES_MAX, MessageId, NodeId, RoomId, SessionId, StreamId, UserId,
};

/// The frame that has the fields of `T` and this `type`.
pub(crate) fn frame<T: JsonSchema>(tag: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|s| s.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(leave_out));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    add_tag(&mut schema, tag);
    schema.insert("title".to_owned(), json!(tag));
    schema.to_value()
}

fn add_tag(schema: &mut Schema, tag: &str) {
    let fields = schema.ensure_object();
    if let Value::Object(properties) = fields.entry("properties").or_insert_with(|| json!({})) {
        properties.insert("type".to_owned(), json!({"const": tag}));
    }
    if let Value::Array(required) = fields.entry("required").or_insert_with(|| json!([])) {
        required.insert(0, json!("type"));
    }
}

/// A field that need not be there is not null.
fn leave_out(schema: &mut Schema) {
    let Some(fields) = schema.as_object_mut() else { return };
    let required = fields.get("required").cloned().unwrap_or_default();
    let required: Vec<&str> = required.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(Value::Object(properties)) = fields.get_mut("properties") else { return };
    for (name, field) in properties {
        if !required.contains(&name.as_str())
            && let Some(Value::Array(types)) = field.get_mut("type")
        {
            types.retain(|t| t != "null");
            if let [one] = types.as_slice() {
                field["type"] = one.clone();
            }
        }
    }
}

/// A schema that is written where it is used.
macro_rules! schemas {
    ($($name:ident => $schema:expr;)*) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

schemas! {
    UserId => text(ID_BYTES_MAX, &format!("[^#{CONTROL}][^{CONTROL}]*"));
    RoomId => text(ID_BYTES_MAX, &format!("[^{CONTROL}]+"));
    DeviceId => text(ID_BYTES_MAX, &format!("[^{CONTROL}]+"));
    NodeId => text(64, "[A-Za-z0-9_.-]+");
    SessionId => text(64, "[A-Za-z0-9-]+");
    MessageId => text(MESSAGE_ID_BYTES_MAX, "[A-Za-z0-9_.:-]+");
    StreamId => text("user:".len() + ID_BYTES_MAX, &format!("(user:[^#{CONTROL}]|room:[^{CONTROL}])[^{CONTROL}]*"));
    Before => json_schema!({"type": "string"});
    Json => json_schema!(true);
    ErrorCode => json_schema!({"enum": ErrorCode::ALL});
}

/// Characters that no id has.
const CONTROL: &str = r"\u0000-\u001F\u007F-\u009F";

fn text(characters_max: usize, pattern: &str) -> Schema {
    json_schema!({"type": "string", "maxLength": characters_max, "pattern": format!("^{pattern}$")})
}

/// A `message` inside of another frame.
pub(crate) struct MessageFrame;

impl JsonSchema for MessageFrame {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "MessageFrame".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Message::json_schema(generator);
        add_tag(&mut schema, "message");
        schema
    }
}
