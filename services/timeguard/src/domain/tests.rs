mod properties;
mod simulation;
mod world;
