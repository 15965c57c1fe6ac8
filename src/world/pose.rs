//! How actions change the state of a robot, as V-JEPA 2-AC's planner has it: the pose of its hand and its gripper.

use crate::{Error, Result};

/// Numbers of a pose, and of an action on it: place (m), rotation (rad; about the fixed axes x, y and z, in this order) and gripper.
const POSE: usize = 7;

/// The state after an action. Of seven numbers each, they are a pose and its change: places add up, the action's rotation follows the
/// state's, and the gripper stays between 0 and 1. Other states have as many numbers as their actions, which add up.
///
/// # Errors
/// [`Error::BadInput`] for states of another number of values than actions, whose change is not known.
pub fn moved(state: &[f32], action: &[f32]) -> Result<Vec<f32>> {
    if state.len() != action.len() {
        return Err(Error::BadInput(format!(
            "how an action of {} numbers changes a state of {} is not known: give the state before each action",
            action.len(),
            state.len()
        )));
    }
    let mut next: Vec<f32> = state.iter().zip(action).map(|(s, a)| s + a).collect();
    if let &[_, _, _, a, b, c, _] = state {
        let turned = product(rotation(&action[3..6]), rotation(&[a, b, c]));
        next[3..6].copy_from_slice(&angles(turned));
        next[POSE - 1] = next[POSE - 1].clamp(0.0, 1.0);
    }
    Ok(next)
}

type Matrix = [[f64; 3]; 3];

/// `Rz(c) · Ry(b) · Rx(a)`.
fn rotation(angles: &[f32]) -> Matrix {
    let (mut sin, mut cos) = ([0.0; 3], [0.0; 3]);
    for (i, &angle) in angles.iter().enumerate() {
        (sin[i], cos[i]) = f64::from(angle).sin_cos();
    }
    let ([sa, sb, sc], [ca, cb, cc]) = (sin, cos);
    [
        [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
        [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
        [-sb, cb * sa, cb * ca],
    ]
}

fn product(left: Matrix, right: Matrix) -> Matrix {
    let dot = |row: [f64; 3], column: usize| (0..3).map(|i| row[i] * right[i][column]).sum();
    left.map(|row| [0, 1, 2].map(|column| dot(row, column)))
}

/// The angles whose [`rotation`] this is. Where the second is a right angle the third is taken for 0, as scipy does.
fn angles(m: Matrix) -> [f32; 3] {
    /// Cosine of the second angle below which the others cannot be told apart.
    const LOCKED: f64 = 1e-7;
    let cos = m[0][0].hypot(m[1][0]);
    let second = (-m[2][0]).atan2(cos);
    let all = match cos > LOCKED {
        true => [m[2][1].atan2(m[2][2]), second, m[1][0].atan2(m[0][0])],
        false => [(-m[1][2]).atan2(m[1][1]), second, 0.0],
    };
    all.map(|angle| angle as f32)
}

#[cfg(test)]
mod tests {
    use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI};

    use super::*;

    fn near(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-6, "{found} for {wanted}");
        }
    }

    #[test]
    fn places_add_up_and_the_gripper_has_ends() {
        let state = [0.1, -0.2, 0.3, 0.0, 0.0, 0.0, 0.5];
        let moved = |action: [f32; 7]| moved(&state, &action).unwrap();
        near(
            &moved([0.05, 0.1, -0.05, 0.0, 0.0, 0.0, 0.25]),
            &[0.15, -0.1, 0.25, 0.0, 0.0, 0.0, 0.75],
        );
        assert_eq!(moved([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.75])[6], 1.0);
        assert_eq!(moved([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.75])[6], 0.0);
    }

    #[test]
    fn rotations_about_fixed_axes_follow_each_other() {
        let turned = |first: [f32; 3], then: [f32; 3]| {
            let pose = |[a, b, c]: [f32; 3]| [0.0, 0.0, 0.0, a, b, c, 0.0];
            moved(&pose(first), &pose(then)).unwrap()[3..6].to_vec()
        };
        // About one axis angles add up, on the other side of half a turn.
        near(
            &turned([0.0, 0.0, 3.0], [0.0, 0.0, 1.0]),
            &[0.0, 0.0, 4.0 - 2.0 * PI],
        );
        // x, then y, then z is what the angles say themselves.
        near(&turned([0.4, 0.0, 0.0], [0.0, 0.3, 0.0]), &[0.4, 0.3, 0.0]);
        near(
            &turned([0.4, 0.3, 0.0], [0.0, 0.0, -1.0]),
            &[0.4, 0.3, -1.0],
        );
        // A quarter about z, then one about x: x goes to z, z to −y, so that the second angle is −π/2.
        near(
            &turned([0.0, 0.0, FRAC_PI_2], [FRAC_PI_2, 0.0, 0.0])[1..],
            &[-FRAC_PI_2, 0.0],
        );
        // What the angles stand for stays where they cannot be told apart.
        let locked = turned([FRAC_PI_4, 0.0, 0.0], [0.0, FRAC_PI_2, 0.0]);
        near(&locked, &[FRAC_PI_4, FRAC_PI_2, 0.0]);
        let (found, wanted) = (
            rotation(&turned([0.3, -0.7, 1.1], [-0.2, 0.5, 0.9])),
            product(rotation(&[-0.2, 0.5, 0.9]), rotation(&[0.3, -0.7, 1.1])),
        );
        for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((found - wanted).abs() < 1e-6);
        }
    }

    #[test]
    fn other_states_add_up_or_are_refused() {
        assert_eq!(moved(&[1.0, 2.0], &[0.5, -3.0]), Ok(vec![1.5, -1.0]));
        let code = |result: Result<Vec<f32>>| result.map_err(|e| e.code());
        assert_eq!(code(moved(&[1.0, 2.0, 3.0], &[0.5])), Err("bad-input"));
    }
}
