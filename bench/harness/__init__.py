"""What a measurement needs: servers tied to cores, CPU accounting, rounds, and an idle machine."""
