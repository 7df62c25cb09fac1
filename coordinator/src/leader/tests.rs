//! The leader against the model of the store: what it must do, and above all what it must not.

mod cluster;
mod faults;
mod graves;
mod node;
mod planning;
mod random;
