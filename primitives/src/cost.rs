//! x
/// x
#[derive(Debug)]
pub struct Decision;
/// x
#[derive(Debug)]
pub struct Machine;
/// x
#[derive(Debug)]
pub struct Observation;
/// x
#[derive(Debug)]
pub struct Place;
/// x
#[derive(Debug)]
pub struct Profile;
