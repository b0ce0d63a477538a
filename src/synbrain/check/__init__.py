"""Is a dataset in step with its sources, its images and itself?"""
