//! The Deployment controller: rollouts by way of replica sets.

mod decide;
mod rollout;
mod sets;
mod status;
mod strategy;
