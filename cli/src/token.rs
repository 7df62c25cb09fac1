//! `roost token`: a token such as an application's own login would make.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use roost_proto::claims::Role;
use roost_proto::{Claims, UserId};
use roost_service::{Secret, tokens};

use crate::out::say;
use crate::place;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The user the token is for
    user: UserId,
    /// How long it is good for, in seconds
    #[arg(long, default_value_t = 86_400)]
    ttl: u64,
    /// Make a token for the server API
    #[arg(long)]
    service: bool,
    /// Rooms the user may join, read and publish to, such as 'team-*'; may be given several times
    #[arg(long)]
    room: Vec<String>,
}

/// A token for `user` that is good for `ttl_s` seconds.
pub(crate) fn make(
    secret: &Secret,
    user: &UserId,
    ttl_s: u64,
    role: Role,
    rooms: Option<Vec<String>>,
) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = Claims { sub: user.clone(), exp: now.saturating_add(ttl_s), role, rooms, watch: None };
    let var = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
    tokens::sign_for(secret, &claims, var("JWT_AUDIENCE").as_deref(), var("JWT_ISSUER").as_deref())
}

/// `ROOST_TOKEN`, else one made for `user` with the secret at hand.
pub(crate) fn at_hand(user: &UserId) -> anyhow::Result<String> {
    if let Some(token) = std::env::var("ROOST_TOKEN").ok().filter(|t| !t.is_empty()) {
        return Ok(token);
    }
    let secret = place::secret()?.context(NO_SECRET)?;
    Ok(make(&secret, user, 3600, Role::User, None))
}

pub(crate) const NO_SECRET: &str = "no secret to sign with: set JWT_SECRET (or JWT_SECRET_FILE), or run `roost dev` here first, \
                         which keeps one in its data directory";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let secret = place::secret()?.context(NO_SECRET)?;
    let role = if args.service { Role::Service } else { Role::User };
    let rooms = (!args.room.is_empty()).then(|| args.room.clone());
    say!("{}", make(&secret, &args.user, args.ttl, role, rooms));
    Ok(())
}
